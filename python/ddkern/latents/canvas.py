# SPDX-License-Identifier: Apache-2.0
"""Images of a data set on the canvas of a model, and back. Importing this module needs torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ddkern.checks import as_count, as_image_size
from ddkern.latents.arguments import as_image_shape
from ddkern.latents.identity import to_values

__all__ = ["Canvas"]


@dataclass(frozen=True, slots=True)
class Canvas:
    """The images that a model takes: its channels, its size, values from -1 to 1.

    Grey images get three equal channels where the model wants colour, and the mean of the channels
    on the way back. Where sizes differ, images are resized by bicubic interpolation, which averages
    over more pixels when it makes an image smaller (antialiasing) and is cut off at -1 and 1.

    Attributes
    ----------
    image_shape : (int, int, int)
        Channels (1 or 3), height, width of the images.
    channels : int
        Of the model, 1 or 3.
    size : (int, int)
        Height and width of the canvas.

    Raises
    ------
    ValueError
        If the images have colour and the model has not, or a number breaks its rule.
    """

    image_shape: tuple[int, int, int]
    channels: int
    size: tuple[int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", as_image_shape(self.image_shape))
        object.__setattr__(self, "size", as_image_size(self.size, "size"))
        if as_count("channels", self.channels) not in (1, 3):
            raise ValueError(f"channels={self.channels}; a model must take images of 1 or 3")
        if self.image_shape[0] > self.channels:
            raise ValueError(
                f"image_shape={self.image_shape}, but the model takes images of one channel; make "
                "the images grey first"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of the canvas."""
        return self.channels, *self.size

    def paint(self, images: NDArray[np.uint8], device: torch.device | str = "cpu") -> torch.Tensor:
        """What the model takes: float32 of shape (n, *shape) on a device, from -1 to 1.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, *image_shape)
        device : torch.device or str
        """
        values = self._resized(torch.from_numpy(to_values(images)).to(device), self.size)
        return values.expand(-1, self.channels, -1, -1)

    def read(self, values: torch.Tensor) -> NDArray[np.uint8]:
        """The images of what the model gave, rounded to the nearest pixels.

        Parameters
        ----------
        values : tensor of floats, shape (n, *shape)
            Values beyond -1 and 1 are cut off.

        Returns
        -------
        ndarray of uint8, shape (n, *image_shape)
        """
        seen = values.float().clamp(-1, 1)
        if self.image_shape[0] < self.channels:
            seen = seen.mean(dim=1, keepdim=True)
        pixels = (self._resized(seen, self.image_shape[1:]) + 1) * 127.5
        images: NDArray[np.uint8] = pixels.round().to(torch.uint8).cpu().numpy()
        return images

    @staticmethod
    def _resized(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if tuple(values.shape[2:]) == size:
            return values
        return functional.interpolate(
            values, size, mode="bicubic", align_corners=False, antialias=True
        ).clamp(-1, 1)
