# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddkern.data import ImageDataset
from ddkern.data.dataset import ArrayImages, check_labels
from helpers.datasets import CLASS_COUNTS, NAMES, make_images

IMAGES, LABELS = make_images()


def _dataset(images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> ImageDataset:
    rows = np.arange(len(labels))
    return ImageDataset(
        "made", None, ArrayImages(images, "made"), rows, labels, NAMES, images.shape[1:]
    )


class Counting(ArrayImages):
    """Remembers how many images it was asked for at once."""

    asked: list[int]

    def read(self, rows: Any) -> Any:
        Counting.asked.append(len(rows))
        return ArrayImages.read(self, rows)


def test_records_and_views() -> None:
    data = _dataset()
    assert len(data) == 12
    assert data.n_classes == 3
    np.testing.assert_array_equal(data.class_counts, CLASS_COUNTS)
    np.testing.assert_array_equal(data.rows_of_class(1), np.flatnonzero(LABELS == 1))
    assert repr(data) == "ImageDataset('made', images=12, classes=3, image_shape=(3, 6, 5))"
    np.testing.assert_array_equal(data.images([3, 0, 3]), IMAGES[[3, 0, 3]])
    assert data.images([]).shape == (0, 3, 6, 5)


@pytest.mark.parametrize("max_bytes", [1, 90, 91, 270, 10**9])
def test_chunks_hold_all_rows_and_no_more_than_fits(max_bytes: int) -> None:
    Counting.asked = []
    data = _dataset()
    counting = ImageDataset(
        "made", None, Counting(IMAGES, "made"), data.rows, LABELS, NAMES, data.image_shape
    )
    parts = list(counting.chunks(max_bytes))
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in parts]), np.arange(12))
    np.testing.assert_array_equal(np.concatenate([images for _, images in parts]), IMAGES)
    assert max(Counting.asked) == min(12, max(1, max_bytes // 90))


def test_subset_of_a_subset_keeps_track_of_rows() -> None:
    part = _dataset().subset([11, 5, 2, 7]).subset([2, 0])
    np.testing.assert_array_equal(part.images(), IMAGES[[2, 11]])
    np.testing.assert_array_equal(part.labels, LABELS[[2, 11]])
    assert part.class_names == NAMES


def test_loading_decodes_once() -> None:
    Counting.asked = []
    source = Counting(IMAGES.copy(), "made")
    data = ImageDataset("made", "train", source, np.arange(12)[::-1], LABELS, NAMES, (3, 6, 5))
    loaded = data.load()
    Counting.asked.clear()
    np.testing.assert_array_equal(loaded.images(), IMAGES[::-1])
    assert loaded.split == "train"
    assert Counting.asked == []


def test_divide() -> None:
    train, test = _dataset().divide(0.4, 1)
    assert (train.split, test.split) == ("train", "test")
    np.testing.assert_array_equal(test.class_counts, [2, 1, 2])
    np.testing.assert_array_equal(train.class_counts + test.class_counts, CLASS_COUNTS)


def test_quick_fingerprint_looks_at_some_images_and_all_labels() -> None:
    images = np.zeros((1000, 1, 2, 2), np.uint8)
    labels = np.arange(1000) % 2

    def found(images: np.ndarray, labels: np.ndarray) -> str:
        rows = np.arange(len(labels))
        source = ArrayImages(images, "here")
        return ImageDataset(
            "a", None, source, rows, labels, ("0", "1"), (1, 2, 2)
        ).quick_fingerprint()

    first = found(images, labels)
    assert first == found(images.copy(), labels)
    last, swapped = images.copy(), labels.copy()
    last[999] = 1
    swapped[501:503] = swapped[502], swapped[501]
    others = [found(last, labels), found(images, swapped), found(images[:998], labels[:998])]
    assert len({first, *others}) == 4


def test_fingerprint_is_of_the_contents() -> None:
    data = _dataset()
    reference = data.fingerprint()
    assert data.load().fingerprint() == reference
    assert _dataset(IMAGES.copy(), LABELS.copy()).fingerprint() == reference
    pixel, label = IMAGES.copy(), LABELS.copy()
    pixel[7, 1, 2, 3] ^= 1
    label[[0, 1]] = label[[1, 0]] if label[0] != label[1] else (label[0] + 1) % 3
    others = {
        _dataset(pixel).fingerprint(),
        _dataset(labels=label).fingerprint(),
        data.subset(np.arange(12)[::-1]).fingerprint(),
        _dataset(IMAGES.reshape(12, 3, 5, 6)).fingerprint(),
    }
    assert len(others) == 4
    assert reference not in others


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([12], IndexError, "rows holds 12; this data set has rows 0 to 11"),
        ([0, -1], IndexError, "rows holds -1"),
        ([0.5], TypeError, "rows has dtype float64"),
        (3, TypeError, r"shape \(\)"),
    ],
)
def test_bad_rows(rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _dataset().images(rows)
    with pytest.raises(error, match=message):
        _dataset().subset(rows)


def test_no_chunk_of_zero_bytes() -> None:
    with pytest.raises(ValueError, match="max_bytes=0"):
        next(_dataset().chunks(0))


def _check(labels: Any, names: Any = None) -> Any:
    return check_labels(np.array(labels), names, "made", lambda row: f"made, row {row}")


def test_classes_are_named_by_number_where_nothing_else_is_known() -> None:
    ids, names = _check(np.array([1, 0, 2], np.uint8))
    assert ids.dtype == np.int64
    assert names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1, 3], NAMES, r"made, row 2: label 3 is out of range; with 3 classes .* \[0, 3\)"),
        ([0, -1, 1], NAMES, "made, row 1: label -1 is out of range"),
        ([0, -1, 1], None, "made, row 1: label -1 is out of range"),
        ([0, 2, 2], NAMES, r"made: class 1 \('dog'\) is empty"),
        ([0, 2, 2], None, r"made: class 1 \('1'\) is empty"),
        (np.zeros(0, int), None, "made has no images"),
    ],
)
def test_bad_labels(labels: Any, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _check(labels, names)


@pytest.mark.parametrize("labels", [[0.0, 1.0], [[0], [1]], [True]])
def test_labels_of_another_kind(labels: Any) -> None:
    with pytest.raises(TypeError, match="one integer an image"):
        _check(labels)
