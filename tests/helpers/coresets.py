# SPDX-License-Identifier: Apache-2.0
"""Data sets to choose coresets from, and what any coreset has to be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.data.dataset import ArrayImages
from helpers.bits import assert_same_array_bits

RAGGED = (7, 2, 12)


def make_dataset(
    counts: Sequence[int] = RAGGED,
    shape: tuple[int, int, int] = (1, 3, 2),
    seed: int = 0,
    *,
    n_values: int = 256,
) -> ImageDataset:
    """Return a data set of random images, labels in mixed order, any number of images a class.

    Pixels take `n_values` values: with 2 of them many images are equal.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    images = rng.integers(0, n_values, (len(labels), *shape), np.uint8)
    return dataset_of(images, labels, len(counts))


def dataset_of(images: NDArray[np.uint8], labels: NDArray[np.int64], n: int) -> ImageDataset:
    """Return the data set of these arrays, with `n` classes that may be empty."""
    names = tuple(f"class {label}" for label in range(n))
    rows = np.arange(len(labels))
    source = ArrayImages(images, "made")
    return ImageDataset("made", "train", source, rows, labels, names, images.shape[1:])


def inputs_of(dataset: ImageDataset, label: int) -> NDArray[np.float64]:
    """Return the images of a class as flat rows, normalised, in float64."""
    images = dataset.images(dataset.rows_of_class(label))
    return Normalization.fit(dataset).apply(images).reshape(len(images), -1).astype(np.float64)


def rows_by_class(made: DistilledSet, dataset: ImageDataset) -> list[list[int]]:
    """Return what was chosen from each class, as positions among its images, in order."""
    rows = np.array(made.provenance.options["rows"])
    return [
        np.searchsorted(dataset.rows_of_class(label), rows[made.labels == label]).tolist()
        for label in range(dataset.n_classes)
    ]


def assert_coreset(made: DistilledSet, dataset: ImageDataset, ipc: int) -> None:
    """Fail unless `made` holds `ipc` different images of each class of `dataset`, class-major."""
    rows = made.provenance.options["rows"]
    assert all(type(row) is int for row in rows)
    assert len(set(rows)) == len(rows), "an image was chosen twice"
    expected = np.repeat(np.arange(dataset.n_classes), ipc)
    assert_same_array_bits(made.labels, expected, "labels")
    assert_same_array_bits(dataset.labels[rows], expected, "labels of the rows")
    assert_same_array_bits(made.images, dataset.images(rows), "images")
    assert made.class_names == dataset.class_names
    assert made.soft_labels is None
