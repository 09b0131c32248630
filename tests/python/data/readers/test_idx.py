# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from ddkern.data import open_dataset
from helpers.datasets import idx_bytes, make_images, write_idx

IMAGES, LABELS = make_images(shape=(1, 6, 5))
GREY = IMAGES[:, 0]


@pytest.mark.parametrize("compress", [False, True])
def test_train_and_test(tmp_path: Path, compress: bool) -> None:
    write_idx(tmp_path, "train", GREY[:9], LABELS[:9], compress=compress)
    write_idx(tmp_path, "t10k", GREY[9:], LABELS[9:], compress=compress)
    train = open_dataset(tmp_path)
    assert train.split == "train"
    assert train.image_shape == (1, 6, 5)
    np.testing.assert_array_equal(train.images(), IMAGES[:9])
    test = open_dataset(tmp_path, split="test")
    np.testing.assert_array_equal(test.images([2, 0]), IMAGES[[11, 9]])
    np.testing.assert_array_equal(test.labels, LABELS[9:])
    suffix = ".gz" if compress else ""
    by_file = open_dataset(tmp_path / f"t10k-images-idx3-ubyte{suffix}")
    np.testing.assert_array_equal(by_file.labels, LABELS[9:])


def test_names_with_dots(tmp_path: Path) -> None:
    (tmp_path / "train-images.idx3-ubyte").write_bytes(idx_bytes(GREY))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx_bytes(LABELS.astype(np.uint8)))
    np.testing.assert_array_equal(open_dataset(tmp_path).images(), IMAGES)


def test_plain_images_are_mapped(tmp_path: Path) -> None:
    write_idx(tmp_path, "train", GREY, LABELS, compress=False)
    assert isinstance(open_dataset(tmp_path).source.images, np.memmap)


def test_labels_missing(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(GREY))
    message = "the labels are missing: looked for a name like train-labels-idx1-ubyte"
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file: it begins with $"),
        (b"\x89PNG....", "it begins with 89504e47"),
        (idx_bytes(GREY)[:10], "ends within its header"),
        (idx_bytes(GREY)[:-1], r"holds 359 values; its header says 360, shape \(12, 6, 5\)"),
        (idx_bytes(GREY) + b"\0", "holds 361 values"),
        (b"\0\0\x0d\x03" + bytes(12), "values of type 0x0d"),
    ],
)
def test_damaged_file(tmp_path: Path, content: bytes, message: str) -> None:
    write_idx(tmp_path, "train", GREY, LABELS, compress=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte .*{message}"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("end", [5, 60, -4])
def test_damaged_compression(tmp_path: Path, end: int) -> None:
    write_idx(tmp_path, "train", GREY, LABELS, compress=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(idx_bytes(GREY))[:end])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz cannot be inflated"):
        open_dataset(tmp_path)


def test_as_many_labels_as_images(tmp_path: Path) -> None:
    write_idx(tmp_path, "train", GREY, LABELS[:-1], compress=False)
    with pytest.raises(ValueError, match="holds 12 images, but there are 11 labels"):
        open_dataset(tmp_path)
