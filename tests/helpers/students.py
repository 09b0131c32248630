# SPDX-License-Identifier: Apache-2.0
"""Small tasks and networks that train in a moment."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ddkern.augment import DSA
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.data.dataset import ArrayImages
from ddkern.evaluate import Protocol
from ddkern.training import Decay, Optimizer, Recipe

NAMES = ("left", "middle", "right")


class TinyNet(nn.Module):
    """A convolution and a linear layer; learns in a few steps where a bright bar is."""

    def __init__(self, n_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.linear = nn.Linear(4 * 64, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.linear(self.convolution(images).relu().flatten(1))


def make_task(n: int = 60, seed: int = 0, split: str = "test", zoom: int = 1) -> ImageDataset:
    """Return noisy 8 x 8 images, enlarged by `zoom`, in which a bright bar tells the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.integers(0, 120, (n, 3, 8, 8))
    for row, label in enumerate(labels):
        images[row, :, :, 3 * label : 3 * label + 2] += 100
    images = images.astype(np.uint8).repeat(zoom, axis=2).repeat(zoom, axis=3)
    source = ArrayImages(images, "bars")
    return ImageDataset("bars", split, source, np.arange(n), labels, NAMES, images.shape[1:])


def make_bars(ipc: int = 4, seed: int = 1, zoom: int = 1, **changes: object) -> DistilledSet:
    """Return a set of the same kind of images, with weights."""
    task = make_task(3 * ipc, seed, "train", zoom)
    rng = np.random.default_rng(seed)
    fields = {
        "normalization": Normalization(np.full(3, 0.4), np.full(3, 0.25)),
        "class_names": NAMES,
        "sample_weight": rng.uniform(0.2, 2, 3 * ipc),
    }
    return DistilledSet(task.images(), task.labels, **(fields | changes))


def make_protocol(**changes: object) -> Protocol:
    """Return a protocol of six epochs with augmentation, in batches of five."""
    recipe = Recipe(
        epochs=6,
        batch_size=5,
        optimizer=Optimizer(name="sgd", lr=0.05, momentum=0.9),
        decay=Decay(kind="step", at=4, factor=0.1, restart=True),
        augment=(DSA(),),
    )
    fields = {
        "id": "T",
        "version": 1,
        "title": "short",
        "source": "tests",
        "model": "convnet",
        "sides": (8, 32),
        "recipe": recipe,
        "n_networks": 3,
    }
    return Protocol(**(fields | changes))
