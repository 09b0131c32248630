# SPDX-License-Identifier: Apache-2.0
"""From pixels to what networks take, and back: one record for training, test and synthetic images.

With ``u`` the pixels in [0, 1], per channel ``v = (u - mean) / std``; then, where there is a ZCA
whitening, ``x = (v - zca.mean) @ zca.matrix`` over all values of an image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddkern.data.dataset import ImageDataset

__all__ = ["Normalization", "Zca"]

# What published sets are normalised with. The deviations of CIFAR-10 and SVHN are means over the
# deviations of single images, not that of all pixels; published sets rely on them. DC, DM and MTT
# use the numbers of CIFAR-10 for CIFAR-100 as well.
_PUBLISHED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# Values of pixels less this one lie in [-128, 127], so sums of products of 1024 of them are whole
# numbers of at most 2**24, which float32 holds exactly in whatever order they are added.
_CENTRE = 128
_EXACT_ROWS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Zca:
    """ZCA whitening: decorrelates all values of an image and stays as near to it as possible.

    With the covariance ``V diag(s) V'`` of the training images, the matrix is
    ``V diag((s + eps)**-1/2) V'`` (A. Bell and T. Sejnowski, *The "independent components" of
    natural scenes are edge filters*, Vision Research 37, 1997).

    Attributes
    ----------
    mean : ndarray of float64, shape (d,)
        Of the training images, with d = channels * height * width.
    matrix : ndarray of float32, shape (d, d)
        Symmetric and positive definite.
    eps : float
        Added to the variances, above 0.
    """

    mean: NDArray[np.float64]
    matrix: NDArray[np.float32]
    eps: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", np.asarray(self.mean, np.float64))
        object.__setattr__(self, "matrix", np.asarray(self.matrix, np.float32))
        if self.mean.ndim != 1 or self.matrix.shape != 2 * self.mean.shape:
            raise ValueError(
                f"zca has a mean of shape {self.mean.shape} and a matrix of shape "
                f"{self.matrix.shape}; they must be (d,) and (d, d)"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.matrix).all()):
            raise ValueError("zca holds NaN or infinity")
        if not (0.0 < self.eps < np.inf):
            raise ValueError(f"zca has eps={self.eps}; it must be above 0 and finite")


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """How pixels become the input of a network. Fitted on training images, used for all.

    Attributes
    ----------
    mean, std : ndarray of float64, shape (channels,)
        Of pixels in [0, 1]; ``std`` is above 0.
    zca : Zca or None
        Applied after ``mean`` and ``std``.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    zca: Zca | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, np.array(getattr(self, name), np.float64, ndmin=1))
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise ValueError(
                f"mean has shape {self.mean.shape} and std {self.std.shape}; both must be "
                "(channels,)"
            )
        if not np.isfinite(self.mean).all():
            raise ValueError(f"mean={self.mean}; it must be finite")
        if not ((self.std > 0) & np.isfinite(self.std)).all():
            raise ValueError(f"std={self.std}; it must be above 0 and finite")
        if self.zca is not None and len(self.zca.mean) % len(self.mean):
            raise ValueError(
                f"zca is for images of {len(self.zca.mean)} values, which {len(self.mean)} "
                "channels do not divide"
            )

    def __repr__(self) -> str:
        zca = "" if self.zca is None else f", zca of {len(self.zca.mean)} values"
        return f"Normalization(mean={self.mean.tolist()}, std={self.std.tolist()}{zca})"

    @property
    def channels(self) -> int:
        """Channels of the images that this is for."""
        return len(self.mean)

    @classmethod
    def identity(cls, channels: int) -> Normalization:
        """Pixels in [0, 1] as they are."""
        return cls(np.zeros(channels), np.ones(channels))

    @classmethod
    def published(cls, name: str) -> Normalization:
        """The numbers that published sets and protocols use for a data set.

        Parameters
        ----------
        name : str
            ``"cifar10"`` (also what DC, DM and MTT take for CIFAR-100), ``"mnist"``,
            ``"fashion_mnist"``, ``"svhn"`` or ``"imagenet"`` (its subsets and Tiny ImageNet too).
        """
        if name not in _PUBLISHED:
            raise ValueError(f"name={name!r}; it must be one of {', '.join(map(repr, _PUBLISHED))}")
        mean, std = _PUBLISHED[name]
        return cls(np.array(mean), np.array(std))

    @classmethod
    def fit(cls, train: ImageDataset, *, zca: bool = False, zca_eps: float = 0.1) -> Normalization:
        """Mean and deviation of every channel over all pixels, or a ZCA whitening.

        Images are read a chunk at a time, and the sums are exact, so neither chunks nor threads
        matter. A ZCA takes float64 matrices of d x d values, d = channels * height * width, and
        work that grows with d cubed: seconds for 32 x 32 RGB.

        Parameters
        ----------
        train : ImageDataset
            Training images. Fit nothing on test images.
        zca : bool
            Whiten instead: ``mean`` is 0 and ``std`` 1 then, and the whitening is fitted to pixels
            in [0, 1] with the covariance divided by n - 1, as published sets have it.
        zca_eps : float
            Added to the variances.

        Raises
        ------
        ValueError
            If a channel is constant, or there are fewer than two images for a ZCA.
        """
        if zca:
            identity = cls.identity(train.image_shape[0])
            return cls(identity.mean, identity.std, _fit_zca(train, zca_eps))
        total = np.zeros(train.image_shape[0], np.int64)
        squares = np.zeros_like(total)
        for _, images in train.chunks():
            # A histogram holds the sums of any power exactly.
            for channel in range(len(total)):
                counts = np.bincount(images[:, channel].ravel(), minlength=256)
                total[channel] += counts @ np.arange(256)
                squares[channel] += counts @ np.arange(256) ** 2
        n = len(train) * train.image_shape[1] * train.image_shape[2]
        mean = total / n
        # n * squares - total**2 in Python's integers: no cancellation.
        spread = [n * int(s) - int(t) ** 2 for s, t in zip(squares, total, strict=True)]
        if min(spread) == 0:
            raise ValueError(f"channel {spread.index(0)} of {train!r} is constant")
        return cls(mean / 255, np.sqrt(np.array(spread, np.float64)) / n / 255)

    def fingerprint(self) -> str:
        """A digest of all numbers: SHA-256 in hexadecimal, 64 characters."""
        digest = hashlib.sha256(self.mean.tobytes() + self.std.tobytes())
        if self.zca is not None:
            digest.update(self.zca.mean.tobytes() + self.zca.matrix.tobytes())
        return digest.hexdigest()

    def apply(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Pixels to the input of a network.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, channels, height, width)

        Returns
        -------
        ndarray of float32, same shape
        """
        self._check(images)
        if images.dtype != np.uint8:
            raise TypeError(f"images has dtype {images.dtype}; pixels are uint8")
        values = np.empty(images.shape, np.float32)
        table = (np.arange(256) / 255 - self.mean[:, None]) / self.std[:, None]
        for channel, row in enumerate(table.astype(np.float32)):
            values[:, channel] = row[images[:, channel]]
        if self.zca is not None:
            flat = values.reshape(len(values), -1) - self.zca.mean.astype(np.float32)
            values = (flat @ self.zca.matrix).reshape(images.shape)
        return values

    def invert(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """The input of a network back to pixels in [0, 1]; synthetic images may lie beyond.

        Parameters
        ----------
        inputs : ndarray of floats, shape (n, channels, height, width)

        Returns
        -------
        ndarray of float64, same shape
        """
        self._check(inputs)
        values = inputs.astype(np.float64)
        if self.zca is not None:
            flat = values.reshape(len(values), -1)
            # The matrix is symmetric, so rows of x @ M = y solve M x' = y'.
            flat = np.linalg.solve(self.zca.matrix.astype(np.float64), flat.T).T + self.zca.mean
            values = flat.reshape(inputs.shape)
        shape = (1, self.channels, 1, 1)
        restored: NDArray[np.float64] = values * self.std.reshape(shape) + self.mean.reshape(shape)
        return restored

    def to_pixels(self, inputs: NDArray[Any]) -> NDArray[np.uint8]:
        """The input of a network back to 8 bits: rounded, and cut off at 0 and 255."""
        return np.clip(np.rint(self.invert(inputs) * 255), 0, 255).astype(np.uint8)

    def check_shape(self, image_shape: tuple[int, ...], what: str) -> None:
        """Raise ValueError unless this is a normalization for images of that shape."""
        if image_shape[0] != self.channels:
            raise ValueError(
                f"{what} has shape {image_shape} an image; its normalization is for "
                f"{self.channels} channels"
            )
        if self.zca is not None and int(np.prod(image_shape)) != len(self.zca.mean):
            raise ValueError(
                f"{what} has shape {image_shape} an image; its zca is for {len(self.zca.mean)} "
                "values"
            )

    def _check(self, images: NDArray[Any]) -> None:
        if images.ndim != 4:
            raise ValueError(
                f"images has shape {images.shape}; it must be (n, channels, height, width)"
            )
        self.check_shape(images.shape[1:], "images")


def _fit_zca(train: ImageDataset, eps: float) -> Zca:
    n = len(train)
    if n < 2:
        raise ValueError(f"{train!r} has {n} image; a ZCA needs at least 2")
    d = int(np.prod(train.image_shape))
    total = np.zeros(d, np.int64)
    products = np.zeros((d, d), np.float64)
    for rows in _centred_rows(train):
        total += rows.sum(axis=0, dtype=np.float64).astype(np.int64)
        products += rows.T @ rows
    mean = total / n
    products -= np.outer(total / n, total)
    products /= (n - 1) * 255.0**2
    variance, vectors = np.linalg.eigh(products)
    # Rounding may leave a variance of 0 slightly below it.
    scale = 1 / np.sqrt(np.maximum(variance, 0) + eps)
    matrix = (vectors * scale) @ vectors.T
    matrix = (matrix + matrix.T) / 2
    return Zca((mean + _CENTRE) / 255, matrix.astype(np.float32), float(eps))


def _centred_rows(train: ImageDataset) -> Iterator[NDArray[np.float32]]:
    for _, images in train.chunks():
        for start in range(0, len(images), _EXACT_ROWS):
            part = images[start : start + _EXACT_ROWS]
            yield part.reshape(len(part), -1).astype(np.float32) - np.float32(_CENTRE)
