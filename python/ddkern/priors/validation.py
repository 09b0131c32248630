# SPDX-License-Identifier: Apache-2.0
"""Whether a prior gives back what it is given, and draws what it is asked for."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ddkern.data import ImageDataset, Normalization
from ddkern.experts import train_teacher
from ddkern.latents import DitCodec
from ddkern.training import Decay, Optimizer, PixelImages, Recipe, measure_accuracy

__all__ = ["draw_from_noise", "measure_reconstruction", "measure_samples"]

_MOST_IMAGES = 10_000

# Enough for a classifier that knows the classes apart: digits nearly all, CIFAR-10 at 65 %.
_CLASSIFIER_STEPS = 400
_CLASSIFIER_BATCH = 128
_CLASSIFIER_WIDTH = 64


def measure_reconstruction(codec: DitCodec, dataset: ImageDataset) -> float:
    """Root mean squared error of pixels in [0, 1] after encoding and decoding alone."""
    rows = np.arange(min(len(dataset), _MOST_IMAGES))
    total = 0.0
    for start in range(0, len(rows), codec.batch_size):
        part = rows[start : start + codec.batch_size]
        images = dataset.images(part)
        again = codec.decode(codec.encode(images), dataset.labels[part], strength=0.0)
        total += float(np.square((again.astype(np.float64) - images) / 255).mean() * len(part))
    return float(np.sqrt(total / len(rows)))


def draw_from_noise(codec: DitCodec, labels: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    """Images of these classes from noise alone: uint8, shape (n, channels, height, width)."""
    latents = np.zeros((len(labels), *codec.latent_shape), np.float32)
    return codec.decode(latents, labels, strength=1.0, seed=seed)


def measure_samples(
    codec: DitCodec,
    dataset: ImageDataset,
    held_out: ImageDataset,
    *,
    n_samples: int,
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """How often a classifier of the real images agrees with the class that was asked for.

    Parameters
    ----------
    codec : DitCodec
    dataset : ImageDataset
        What the classifier is trained on.
    held_out : ImageDataset
        What it is tested on, beside the samples.
    n_samples : int
        Of each of at most 100 classes.
    seed : int
    device : torch.device

    Returns
    -------
    dict
        ``real_accuracy`` and ``sample_accuracy``, in [0, 1].
    """
    normalization = Normalization.fit(dataset)
    epochs = max(1, round(_CLASSIFIER_STEPS * _CLASSIFIER_BATCH / len(dataset)))
    recipe = Recipe(
        epochs=epochs,
        batch_size=_CLASSIFIER_BATCH,
        optimizer=Optimizer(name="sgd", lr=0.02, momentum=0.9, weight_decay=5e-4),
        decay=Decay(kind="cosine"),
    )
    classifier = train_teacher(
        dataset,
        normalization=normalization,
        model=f"convnet-d{min(max(3, min(dataset.image_shape[1:]).bit_length() - 3), 5)}",
        model_options={"width": _CLASSIFIER_WIDTH},
        recipe=recipe,
        test=held_out,
        random_state=seed,
        device=device,
    )
    labels = np.repeat(np.arange(min(dataset.n_classes, 100), dtype=np.int64), n_samples)
    images = draw_from_noise(codec, labels, seed)
    found = measure_accuracy(
        classifier.model,
        PixelImages(images, normalization, device),
        torch.from_numpy(labels).to(device),
        "float32",
    )
    assert classifier.accuracy is not None  # noqa: S101  # held_out was given
    return {"real_accuracy": classifier.accuracy, "sample_accuracy": found}
