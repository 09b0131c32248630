# SPDX-License-Identifier: Apache-2.0
"""What a network is trained on, on the device it is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ddkern.data import ImageDataset, Normalization

__all__ = ["InputImages", "PixelImages", "TrainingSet", "one_hot"]


class PixelImages:
    """Images of 8 bits on a device, normalised a batch at a time.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, channels, height, width)
    normalization : Normalization
    device : torch.device
    """

    def __init__(
        self, pixels: NDArray[np.uint8], normalization: Normalization, device: torch.device
    ) -> None:
        self._pixels = torch.tensor(pixels, device=device)

        def constant(values: NDArray[np.floating]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        self._mean = constant(255 * normalization.mean)[:, None, None]
        self._scale = constant(1 / (255 * normalization.std))[:, None, None]
        zca = normalization.zca
        self._zca = None if zca is None else (constant(zca.mean), constant(zca.matrix))

    @classmethod
    def of_dataset(
        cls, dataset: ImageDataset, normalization: Normalization, device: torch.device
    ) -> PixelImages:
        """All images of a data set, decoded."""
        return cls(dataset.images(), normalization, device)

    def __len__(self) -> int:
        return len(self._pixels)

    def inputs(self, rows: Tensor | slice) -> Tensor:
        """Images as the network takes them: float32, shape (len(rows), channels, height, width)."""
        inputs = (self._pixels[rows] - self._mean) * self._scale
        if self._zca is None:
            return inputs
        mean, matrix = self._zca
        return ((inputs.flatten(1) - mean) @ matrix).view_as(inputs)


class InputImages:
    """Images that are normalised already.

    Parameters
    ----------
    inputs : Tensor of float32, shape (n, channels, height, width)
    """

    def __init__(self, inputs: Tensor) -> None:
        self._inputs = inputs

    def __len__(self) -> int:
        return len(self._inputs)

    def inputs(self, rows: Tensor | slice) -> Tensor:
        """As :meth:`PixelImages.inputs`."""
        return self._inputs[rows]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Images, targets and weights on one device.

    Attributes
    ----------
    images : PixelImages or InputImages
    targets : Tensor of float32, shape (n, n_classes)
        Class probabilities.
    weight : Tensor of float32, shape (n,)
        Of the loss of each image; the mean over an epoch should be 1.
    real : Tensor of bool, shape (n,), or None
        Which images are real ones, for recipes that treat them differently.
    """

    images: PixelImages | InputImages
    targets: Tensor
    weight: Tensor
    real: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.targets.shape[1])

    @property
    def device(self) -> torch.device:
        """Where all of it lies."""
        return self.targets.device


def one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """Class probabilities of hard labels: float32, shape (n, n_classes)."""
    return functional.one_hot(labels, n_classes).float()
