# SPDX-License-Identifier: Apache-2.0
"""A labelled image data set: labels in memory, images decoded when they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count
from ddkern.data.splits import stratified_split

__all__ = ["ArrayImages", "ImageDataset", "ImageSource", "check_labels"]

_CHUNK_BYTES = 1 << 26
_QUICK_IMAGES = 64


class ImageSource(Protocol):
    """Where the images of a data set come from: a file, a folder, an array."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images of these rows, in this order: uint8, shape (len(rows), channels, h, w)."""

    def name_row(self, row: int) -> str:
        """What messages call a row: the file, and the row in it."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayImages:
    """Images that lie in an array, which may be a memory map of a file.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, channels, height, width)
        Any strides.
    origin : str
        What messages call the array.
    """

    images: NDArray[np.uint8]
    origin: str

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of these rows."""
        return np.ascontiguousarray(self.images[rows])

    def name_row(self, row: int) -> str:
        """The array and the row."""
        return f"{self.origin}, row {row}"


@dataclass(frozen=True, slots=True, eq=False)
class ImageDataset:
    """Labelled images of one shape, in 8 bits, read from their source when they are asked for.

    Images have their channels first everywhere in ddkern, as networks take them.

    Attributes
    ----------
    name : str
        Where the images come from: what was given to :func:`ddkern.data.open_dataset`.
    split : str or None
        Which part of it, for example ``"train"``; None where it has no parts.
    source : ImageSource
        Decodes images.
    rows : ndarray of int64, shape (n,)
        The rows of ``source`` that belong to this data set.
    labels : ndarray of int64, shape (n,)
        In ``[0, n_classes)``.
    class_names : tuple of n_classes str
        Classes may have different numbers of images.
    image_shape : (int, int, int)
        Channels (1 or 3), height, width.
    """

    name: str
    split: str | None
    source: ImageSource
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        part = "" if self.split is None else f", split={self.split!r}"
        return (
            f"ImageDataset({self.name!r}{part}, images={len(self)}, classes={self.n_classes}, "
            f"image_shape={self.image_shape})"
        )

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Images of each class, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=self.n_classes).astype(np.int64)

    def rows_of_class(self, label: int) -> NDArray[np.int64]:
        """Rows of this data set with this label, ascending."""
        return np.flatnonzero(self.labels == label)

    def images(self, rows: Any = None) -> NDArray[np.uint8]:
        """Decode images.

        Parameters
        ----------
        rows : array of int, optional
            Rows of this data set, in any order; all by default.

        Returns
        -------
        ndarray of uint8, shape (len(rows), channels, height, width)

        Raises
        ------
        IndexError
            If a row is not in ``[0, n)``.
        ValueError
            If an image is corrupt, or not of ``image_shape``. The message names file and row.
        """
        return self.source.read(self.rows if rows is None else self.rows[self._parse_rows(rows)])

    def chunks(
        self, max_bytes: int = _CHUNK_BYTES
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """All images in order, decoded a part at a time.

        Parameters
        ----------
        max_bytes : int
            A chunk holds as many images as fit in this, and at least one.

        Yields
        ------
        (rows, images)
            As :meth:`images` takes and returns them.
        """
        image_bytes = int(np.prod(self.image_shape))
        step = max(1, as_count("max_bytes", max_bytes) // image_bytes)
        for start in range(0, len(self), step):
            rows = np.arange(start, min(start + step, len(self)))
            yield rows, self.source.read(self.rows[rows])

    def check(self) -> None:
        """Decode every image once, so that a corrupt one is found now.

        Raises
        ------
        ValueError
            As :meth:`images`.
        """
        for _ in self.chunks():
            pass

    def load(self) -> ImageDataset:
        """The same data set with its images decoded in memory, one byte a value."""
        images = np.empty((len(self), *self.image_shape), np.uint8)
        for rows, part in self.chunks():
            images[rows] = part
        return replace(self, source=ArrayImages(images, self.name), rows=np.arange(len(self)))

    def subset(self, rows: Any) -> ImageDataset:
        """The data set of some rows, in the order given. Classes keep their labels and names."""
        chosen = self._parse_rows(rows)
        return replace(self, rows=self.rows[chosen], labels=self.labels[chosen])

    def divide(self, test_fraction: float, random_state: int) -> tuple[ImageDataset, ImageDataset]:
        """Cut every class into two parts, the same ones for the same seed everywhere.

        Parameters
        ----------
        test_fraction : float
            Share of every class in the second part, in (0, 1); see
            :func:`ddkern.data.stratified_split`.
        random_state : int

        Returns
        -------
        (ImageDataset, ImageDataset)
            With splits ``"train"`` and ``"test"``.
        """
        train, test = stratified_split(self.labels, test_fraction, random_state)
        return replace(self.subset(train), split="train"), replace(self.subset(test), split="test")

    def fingerprint(self) -> str:
        """SHA-256 of class names, image shape, labels and decoded images, in their order.

        The same images have the same fingerprint in every format that keeps their pixels. Every
        image is decoded for it, at every call.
        """
        head = json.dumps([list(self.class_names), list(self.image_shape), len(self)])
        digest = hashlib.sha256(head.encode())
        digest.update(self.labels.astype("<i8").tobytes())
        for _, images in self.chunks():
            digest.update(images.tobytes())
        return digest.hexdigest()

    def quick_fingerprint(self) -> str:
        """A fingerprint of all labels, but of 64 images alone, from everywhere in the data set.

        It tells one data set from another in a moment, and not whether an image was exchanged.
        """
        rows = np.unique(np.linspace(0, len(self) - 1, _QUICK_IMAGES).astype(np.int64))
        digest = hashlib.sha256(self.labels.astype("<i8").tobytes())
        digest.update(self.subset(rows).fingerprint().encode())
        return digest.hexdigest()

    def _parse_rows(self, rows: Any) -> NDArray[np.int64]:
        chosen = np.asarray(rows)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
            raise TypeError(
                f"rows has dtype {chosen.dtype} and shape {chosen.shape}; it must be a list of "
                "integers"
            )
        outside = (chosen < 0) | (chosen >= len(self))
        if outside.any():
            row = int(chosen[np.argmax(outside)])
            raise IndexError(f"rows holds {row}; this data set has rows 0 to {len(self) - 1}")
        return chosen.astype(np.int64)


def check_labels(
    labels: NDArray[Any],
    class_names: Sequence[str] | None,
    origin: str,
    name_row: Callable[[int], str],
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as int64 and the names of the classes, all of which must have an image.

    Parameters
    ----------
    labels : ndarray of integers, shape (n,)
    class_names : sequence of str or None
        None names the classes by their numbers, up to the largest label.
    origin : str
        What messages call the data set.
    name_row : callable
        What messages call a row.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If a label is out of range, a class is empty, or there is no image at all.
    """
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise TypeError(
            f"{origin}: the labels have dtype {labels.dtype} and shape {labels.shape}; they must "
            "be one integer an image"
        )
    if not len(labels):
        raise ValueError(f"{origin} has no images")
    names = class_names
    if names is None:
        names = [str(label) for label in range(int(labels.max()) + 1)]
    outside = (labels < 0) | (labels >= len(names))
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"{name_row(row)}: label {labels[row]} is out of range; with {len(names)} classes "
            f"labels must lie in [0, {len(names)})"
        )
    counts = np.bincount(labels, minlength=len(names))
    if not counts.all():
        label = int(np.argmin(counts))
        raise ValueError(
            f"{origin}: class {label} ({names[label]!r}) is empty; every class must have an image"
        )
    return labels.astype(np.int64), tuple(map(str, names))
