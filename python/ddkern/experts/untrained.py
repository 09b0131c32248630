# SPDX-License-Identifier: Apache-2.0
"""A network as the conditions of its training describe it, before the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ddkern.data import ImageDataset
from ddkern.models import make_model

__all__ = ["structure_of", "untrained_network"]


def structure_of(
    dataset: ImageDataset, model: str, model_options: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What :func:`untrained_network` needs to know, as plain values."""
    channels, height, width = dataset.image_shape
    return {
        "model": model,
        "model_options": dict(model_options or {}),
        "in_channels": channels,
        "image_size": [height, width],
        "n_classes": dataset.n_classes,
    }


def untrained_network(structure: Mapping[str, Any], seed: int) -> nn.Module:
    """The network of :func:`structure_of`, with weights drawn from a seed."""
    height, width = structure["image_size"]
    return make_model(
        structure["model"],
        n_classes=structure["n_classes"],
        image_size=(height, width),
        in_channels=structure["in_channels"],
        seed=seed,
        **structure["model_options"],
    )
