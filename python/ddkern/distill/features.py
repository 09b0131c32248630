# SPDX-License-Identifier: Apache-2.0
"""Spaces in which images are compared: pixels, and principal components of them.

A space is opened for one data set, for as long as its features are needed, and features are
computed one class at a time: no more than one class is in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count
from ddkern.data import ImageDataset, Normalization
from ddkern.distill.options import Configured, options_of
from ddkern.latents.principal_components import check_n_components, principal_components

__all__ = [
    "Embed",
    "FeatureSpace",
    "PcaFeatures",
    "PixelFeatures",
    "check_features",
    "features_of_class",
]

Embed: TypeAlias = Callable[[NDArray[np.float32]], NDArray[Any]]
"""From inputs, shape (m, channels, height, width), to their features, shape (m, n_features)."""

# Pixels that are decoded, normalised and embedded at once. In float64 they are eight times as much.
_PART_BYTES = 1 << 23


@runtime_checkable
class FeatureSpace(Configured, Protocol):
    """What a method compares images by. See :class:`PixelFeatures` for the simplest one."""

    def opened(
        self, dataset: ImageDataset, normalization: Normalization
    ) -> AbstractContextManager[Embed]:
        """Fit the space to a data set, and hold what embedding takes until the block ends.

        Parameters
        ----------
        dataset : ImageDataset
            Training images, all classes.
        normalization : Normalization
            From their pixels to inputs.

        Yields
        ------
        Embed
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFeatures:
    """The normalised values of an image, one after another."""

    name: ClassVar[str] = "pixels"

    def options(self) -> dict[str, Any]:
        """There are none."""
        return options_of(self)

    @contextlib.contextmanager
    def opened(self, dataset: ImageDataset, normalization: Normalization) -> Iterator[Embed]:
        """Nothing is fitted."""
        yield lambda inputs: inputs.reshape(len(inputs), -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PcaFeatures:
    """Scores on the leading principal components of all training images.

    The covariance of normalised images is summed in float64, a few images at a time, and takes a
    matrix of d x d values with d = channels * height * width. A component has the sign that makes
    its entry of largest magnitude positive, the first one of several.

    Attributes
    ----------
    n_components : int
        At most d, and less than the number of images.

    References
    ----------
    .. [1] H. Hotelling, "Analysis of a complex of statistical variables into principal
       components", Journal of Educational Psychology 24, 1933.
    """

    name: ClassVar[str] = "pca"

    n_components: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_components", as_count("n_components", self.n_components))

    def options(self) -> dict[str, Any]:
        """The number of components."""
        return options_of(self)

    @contextlib.contextmanager
    def opened(self, dataset: ImageDataset, normalization: Normalization) -> Iterator[Embed]:
        """Fit the components in one pass over the images.

        Raises
        ------
        ValueError
            If there are not as many components.
        """
        check_n_components(self.n_components, len(dataset), int(np.prod(dataset.image_shape)))
        parts = (
            normalization.apply(images).reshape(len(images), -1)
            for _, images in dataset.chunks(_PART_BYTES)
        )
        mean, components = principal_components(parts, self.n_components)
        yield lambda inputs: (inputs.reshape(len(inputs), -1) - mean) @ components


def check_features(features: Any) -> None:
    """Raise TypeError unless this is a feature space."""
    if isinstance(features, type) or not isinstance(features, FeatureSpace):
        raise TypeError(
            f"features={features!r}; it must be a feature space such as PixelFeatures()"
        )


def features_of_class(
    dataset: ImageDataset, normalization: Normalization, embed: Embed, label: int
) -> NDArray[np.float32]:
    """Features of all images of a class.

    Parameters
    ----------
    dataset : ImageDataset
    normalization : Normalization
    embed : Embed
        Of an opened feature space.
    label : int

    Returns
    -------
    ndarray of float32, shape (n_rows, n_features)
        In the order of :meth:`ddkern.data.ImageDataset.rows_of_class`.

    Raises
    ------
    ValueError
        If a feature is not finite in float32. The message names the row.
    """
    members = dataset.rows_of_class(label)
    parts = []
    for rows, images in dataset.subset(members).chunks(_PART_BYTES):
        with np.errstate(over="ignore"):
            part = embed(normalization.apply(images)).astype(np.float32, copy=False)
        finite = np.isfinite(part).all(axis=1)
        if not finite.all():
            row = members[rows[np.argmin(finite)]]
            raise ValueError(f"the features of row {row} hold NaN or infinity in float32")
        parts.append(part)
    return np.concatenate(parts)
