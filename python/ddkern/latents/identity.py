# SPDX-License-Identifier: Apache-2.0
"""Pixels as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_seed
from ddkern.latents.arguments import (
    as_ids,
    as_image_shape,
    as_images,
    as_labels,
    as_latents,
    refuse_decoding,
)

__all__ = ["IdentityCodec", "to_pixels", "to_values"]

_BATCH_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class IdentityCodec:
    """Latents are the pixels, from 0 to 255 as values from -1 to 1. A round trip is exact.

    Attributes
    ----------
    image_shape : (int, int, int)
        Channels (1 or 3), height, width.
    """

    name: ClassVar[str] = "identity"

    image_shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", as_image_shape(self.image_shape))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """That of the images."""
        return self.image_shape

    @property
    def batch_size(self) -> int:
        """As many as are 64 MiB of latents, and at least one."""
        return max(1, _BATCH_BYTES // (4 * int(np.prod(self.image_shape))))

    def describe(self) -> dict[str, Any]:
        """The name and the shape."""
        return {"name": self.name, "image_shape": list(self.image_shape)}

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Pixels know no classes: nothing is refused."""

    def encode(
        self, images: NDArray[np.uint8], *, ids: NDArray[np.int64] | None = None, seed: int = 0
    ) -> NDArray[np.float32]:
        """Pixels as values. See :meth:`ddkern.latents.Codec.encode`."""
        checked = as_images(images, self.image_shape)
        as_ids(ids, len(checked))
        as_seed("seed", seed)
        return to_values(checked)

    def decode(
        self,
        latents: NDArray[np.float32],
        labels: NDArray[np.int64],
        *,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        ids: NDArray[np.int64] | None = None,
        seed: int = 0,
    ) -> NDArray[np.uint8]:
        """Values as the nearest pixels. See :meth:`ddkern.latents.Codec.decode`."""
        self.decoding(strength, steps, guidance)
        checked = as_latents(latents, self.latent_shape)
        as_labels(labels, len(checked))
        as_ids(ids, len(checked))
        as_seed("seed", seed)
        return to_pixels(checked)

    def decoding(
        self,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> dict[str, Any]:
        """Nothing: there is no diffusion model, and all three must be None."""
        return refuse_decoding(type(self).__name__, strength, steps, guidance)


def to_values(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels from 0 to 255 as values from -1 to 1."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_pixels(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The nearest pixels; values beyond -1 and 1 are cut off."""
    rounded = np.rint((values + 1) * values.dtype.type(127.5))
    pixels: NDArray[np.uint8] = np.clip(rounded, 0, 255).astype(np.uint8)
    return pixels
