# SPDX-License-Identifier: Apache-2.0
"""Scores on principal components of pixels."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_seed
from ddkern.data import ImageDataset
from ddkern.files import replaced_when_complete
from ddkern.latents.arguments import (
    as_ids,
    as_image_shape,
    as_images,
    as_labels,
    as_latents,
    batches,
    refuse_decoding,
)
from ddkern.latents.identity import to_pixels, to_values
from ddkern.latents.principal_components import check_n_components, principal_components
from ddkern.optional import import_optional

__all__ = ["PcaCodec"]

_FORMAT = "ddkern.PcaCodec"
_PURPOSE = "the file of a PcaCodec"

# Pixels that are decoded at once while components are fitted; in float64 eight times as much.
_PART_BYTES = 1 << 23

# A covariance of more values a side than this takes more than 2 GiB, and hours to decompose.
_MOST_VALUES = 1 << 14

_BATCH_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, eq=False)
class PcaCodec:
    """Latents are scores on the leading principal components of the pixels of a data set.

    Pixels count as values from -1 to 1. Projections are computed in float64.

    Attributes
    ----------
    image_shape : (int, int, int)
        Channels (1 or 3), height, width: d values.
    mean : ndarray of float32, shape (d,)
        The mean image.
    components : ndarray of float32, shape (d, n_components)
        Orthonormal columns.
    """

    name: ClassVar[str] = "pca"

    image_shape: tuple[int, int, int]
    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", as_image_shape(self.image_shape))
        d = int(np.prod(self.image_shape))
        for name, shape in (("mean", (d,)), ("components", (d, self.components.shape[-1]))):
            array = getattr(self, name)
            rule = f"it must be float32 of shape {shape} for images of shape {self.image_shape}"
            if array.dtype != np.float32 or array.shape != shape:
                raise ValueError(f"{name} has dtype {array.dtype} and shape {array.shape}; {rule}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds NaN or infinity")

    @classmethod
    def fit(cls, dataset: ImageDataset, n_components: int) -> PcaCodec:
        """The leading principal components of all images of a data set, in one pass over them.

        Parameters
        ----------
        dataset : ImageDataset
            Of d = channels * height * width values an image, at most 16384: a matrix of d x d
            values is decomposed.
        n_components : int
            At most d, and less than the number of images.

        Raises
        ------
        ValueError
            If there are not as many components, or the images are too large.
        """
        d = int(np.prod(dataset.image_shape))
        count = check_n_components(n_components, len(dataset), d)
        if d > _MOST_VALUES:
            raise ValueError(
                f"the images of {dataset.name!r} have {d} values each; PcaCodec takes at most "
                f"{_MOST_VALUES}, for it decomposes a square matrix of that side"
            )
        parts = (
            to_values(images).reshape(len(images), d) for _, images in dataset.chunks(_PART_BYTES)
        )
        mean, components = principal_components(parts, count)
        return cls(
            dataset.image_shape,
            mean.astype(np.float32),
            np.ascontiguousarray(components, np.float32),
        )

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The number of components."""
        return (self.components.shape[1],)

    @property
    def batch_size(self) -> int:
        """As many as are 64 MiB of values in float64, and at least one."""
        return max(1, _BATCH_BYTES // (8 * len(self.mean)))

    def describe(self) -> dict[str, Any]:
        """The name, the shapes and a digest of mean and components."""
        digest = hashlib.sha256()
        for array in (self.mean, self.components):
            digest.update(f"{array.shape}".encode() + array.tobytes())
        return {
            "name": self.name,
            "image_shape": list(self.image_shape),
            "n_components": self.components.shape[1],
            "weights": f"sha256:{digest.hexdigest()}",
        }

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Components know no classes: nothing is refused."""

    def encode(
        self, images: NDArray[np.uint8], *, ids: NDArray[np.int64] | None = None, seed: int = 0
    ) -> NDArray[np.float32]:
        """Scores of images. See :meth:`ddkern.latents.Codec.encode`."""
        checked = as_images(images, self.image_shape)
        as_ids(ids, len(checked))
        as_seed("seed", seed)
        latents = np.empty((len(checked), *self.latent_shape), np.float32)
        components = self.components.astype(np.float64)
        for rows in batches(len(checked), self.batch_size):
            values = to_values(checked[rows]).reshape(-1, len(self.mean)).astype(np.float64)
            latents[rows] = (values - self.mean) @ components
        return latents

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
        """Images of scores, rounded. See :meth:`ddkern.latents.Codec.decode`."""
        self.decoding(strength, steps, guidance)
        checked = as_latents(latents, self.latent_shape)
        as_labels(labels, len(checked))
        as_ids(ids, len(checked))
        as_seed("seed", seed)
        images = np.empty((len(checked), *self.image_shape), np.uint8)
        transposed = self.components.T.astype(np.float64)
        for rows in batches(len(checked), self.batch_size):
            values = checked[rows].astype(np.float64) @ transposed + self.mean
            images[rows] = to_pixels(values).reshape(-1, *self.image_shape)
        return images

    def decoding(
        self,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> dict[str, Any]:
        """Nothing: there is no diffusion model, and all three must be None."""
        return refuse_decoding(type(self).__name__, strength, steps, guidance)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, in one step.

        Raises
        ------
        ValueError
            If ``path`` does not end in ``.safetensors``.
        UnsupportedError
            If the package safetensors is not installed.
        """
        target = Path(path)
        if target.suffix != ".safetensors":
            raise ValueError(f"path={str(path)!r}; it must end in .safetensors")
        safetensors = import_optional("safetensors.numpy", _PURPOSE, "data")
        head = json.dumps({"format": _FORMAT, "image_shape": list(self.image_shape)})
        arrays = {"mean": self.mean, "components": self.components}
        content = safetensors.save(arrays, metadata={"metadata": head})
        with replaced_when_complete(target) as file:
            file.write(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PcaCodec:
        """Read what :meth:`save` wrote. Nothing in the file is executed.

        Raises
        ------
        ValueError
            If the file holds something else.
        UnsupportedError
            If the package safetensors is not installed.
        """
        safetensors = import_optional("safetensors", _PURPOSE, "data")
        try:
            with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
                head = json.loads((file.metadata() or {}).get("metadata", "{}"))
                if head.get("format") != _FORMAT:
                    raise ValueError(f"{path} is a safetensors file, but not one of a PcaCodec")
                mean, components = file.get_tensor("mean"), file.get_tensor("components")
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
        return cls(tuple(head["image_shape"]), mean, components)
