# SPDX-License-Identifier: Apache-2.0
"""Arguments that all codecs take: images, latents, labels, ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count

__all__ = [
    "as_ids",
    "as_image_shape",
    "as_images",
    "as_labels",
    "as_latents",
    "batches",
    "refuse_decoding",
]


def as_image_shape(value: Any) -> tuple[int, int, int]:
    """``value`` as (channels, height, width) with 1 or 3 channels."""
    rule = "it must be (channels, height, width) with 1 or 3 channels"
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise TypeError(f"image_shape={value!r}; {rule}")
    if len(value) != 3:
        raise ValueError(f"image_shape={value!r}; {rule}")
    channels, height, width = (as_count(f"image_shape[{i}]", side) for i, side in enumerate(value))
    if channels not in (1, 3):
        raise ValueError(f"image_shape={value!r}; {rule}")
    return channels, height, width


def as_images(images: Any, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """``images`` if they are an array of uint8 of shape (n, *image_shape)."""
    rule = f"it must be an array of uint8 and shape (n, {', '.join(map(str, image_shape))})"
    if not isinstance(images, np.ndarray):
        raise TypeError(f"images is a {type(images).__name__}; {rule}")
    if images.dtype != np.uint8:
        raise TypeError(f"images has dtype {images.dtype}; {rule}")
    if images.ndim != 4 or images.shape[1:] != image_shape:
        raise ValueError(f"images has shape {images.shape}; {rule}")
    return images


def as_latents(latents: Any, latent_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """``latents`` without gaps if they are finite float32 of shape (n, *latent_shape)."""
    rule = f"it must be an array of float32 and shape (n, {', '.join(map(str, latent_shape))})"
    if not isinstance(latents, np.ndarray):
        raise TypeError(f"latents is a {type(latents).__name__}; {rule}")
    if latents.dtype != np.float32:
        raise TypeError(f"latents has dtype {latents.dtype}; {rule}")
    if latents.ndim != 1 + len(latent_shape) or latents.shape[1:] != latent_shape:
        raise ValueError(f"latents has shape {latents.shape}; {rule}")
    finite = np.isfinite(latents.reshape(len(latents), int(np.prod(latent_shape)))).all(axis=1)
    if not finite.all():
        raise ValueError(f"latents holds NaN or infinity in row {np.argmin(finite)}")
    return np.ascontiguousarray(latents)


def as_labels(labels: Any, n: int, n_classes: int | None = None) -> NDArray[np.int64]:
    """``labels`` as int64 of shape (n,), each in [0, n_classes); None is without an upper bound."""
    most = "" if n_classes is None else f" and less than {n_classes}"
    rule = f"it must hold one integer of at least 0{most} for each of the {n} latents"
    return _as_integers("labels", labels, n, n_classes, rule)


def as_ids(ids: Any, n: int) -> NDArray[np.int64]:
    """``ids`` as int64 of shape (n,), none of them negative; None is ``arange(n)``."""
    if ids is None:
        return np.arange(n, dtype=np.int64)
    return _as_integers("ids", ids, n, None, f"it must hold {n} integers of at least 0")


def _as_integers(name: str, value: Any, n: int, limit: int | None, rule: str) -> NDArray[np.int64]:
    integers = np.asarray(value)
    if integers.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {integers.dtype}; {rule}")
    if integers.shape != (n,):
        raise ValueError(f"{name} has shape {integers.shape}; {rule}")
    highest = np.iinfo(np.int64).max if limit is None else limit - 1
    outside = (integers < 0) | (integers > highest)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(f"{name}[{row}]={integers[row]}; {rule}")
    return integers.astype(np.int64)


def refuse_decoding(codec: str, strength: Any, steps: Any, guidance: Any) -> dict[str, Any]:
    """The values that a codec without a diffusion model decodes with: none.

    Raises
    ------
    ValueError
        If one of them is not None.
    """
    given = {"strength": strength, "steps": steps, "guidance": guidance}
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name}={value!r}; it must be None for {codec}, which has no diffusion model"
            )
    return {}


def batches(n: int, batch_size: int) -> Iterator[slice]:
    """The rows 0 to n - 1 in order, ``batch_size`` at a time."""
    for start in range(0, n, batch_size):
        yield slice(start, min(start + batch_size, n))
