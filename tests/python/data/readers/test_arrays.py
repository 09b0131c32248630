# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddkern.data import open_dataset
from helpers.datasets import make_images

IMAGES, LABELS = make_images()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "names",
    [("images", "labels"), ("x", "y"), ("data", "targets"), ("train_images", "train_labels")],
)
def test_npz(tmp_path: Path, names: tuple[str, str], compressed: bool) -> None:
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "set.npz", **{names[0]: IMAGES, names[1]: LABELS})
    data = open_dataset(tmp_path / "set.npz")
    np.testing.assert_array_equal(data.images(), IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.split == ("train" if names[0].startswith("train") else None)


def test_npz_with_splits_and_class_names(tmp_path: Path) -> None:
    arrays = {"x_train": IMAGES[:9], "y_train": LABELS[:9, None], "x_test": IMAGES[9:]}
    names = np.array(["cat", "dog", "owl"])
    np.savez(tmp_path / "set.npz", **arrays, y_test=LABELS[9:], class_names=names)
    train, test = (open_dataset(tmp_path / "set.npz", split=split) for split in ("train", "test"))
    np.testing.assert_array_equal(train.labels, LABELS[:9])
    np.testing.assert_array_equal(test.images(), IMAGES[9:])
    assert train.class_names == test.class_names == ("cat", "dog", "owl")


@pytest.mark.parametrize("order", ["C", "F"])
def test_uncompressed_images_are_mapped_not_read(tmp_path: Path, order: Any) -> None:
    images = np.asarray(IMAGES, order=order)
    np.savez(tmp_path / "set.npz", images=images, labels=LABELS)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", LABELS)
    for path in (tmp_path / "set.npz", tmp_path):
        data = open_dataset(path)
        assert isinstance(data.source.images, np.memmap)
        np.testing.assert_array_equal(data.images([7, 2]), IMAGES[[7, 2]])


def test_npy_files(tmp_path: Path) -> None:
    for name, rows in (("train", slice(0, 9)), ("test", slice(9, None))):
        np.save(tmp_path / f"{name}_images.npy", IMAGES[rows])
        np.save(tmp_path / f"{name}_labels.npy", LABELS[rows])
    np.testing.assert_array_equal(open_dataset(tmp_path).labels, LABELS[:9])
    by_file = open_dataset(tmp_path / "test_images.npy")
    assert by_file.split == "test"
    np.testing.assert_array_equal(by_file.images(), IMAGES[9:])


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 1), (3, 6, 5), (1, 6, 5)])
def test_layouts(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    stored = rng.integers(0, 256, (4, *shape), np.uint8)
    np.savez(tmp_path / "set.npz", images=stored, labels=[0, 1, 0, 1])
    data = open_dataset(tmp_path / "set.npz")
    channels = 3 if 3 in shape else 1
    assert data.image_shape == (channels, 6, 5)
    expected = np.moveaxis(stored, 3, 1) if shape[-1] in (1, 3) else stored
    np.testing.assert_array_equal(data.images(), expected.reshape(4, channels, 6, 5))


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (IMAGES / 255, LABELS, TypeError, r"set\.npz, images has dtype float64; .* 8 bits"),
        (IMAGES[:, :2], LABELS, ValueError, r"images has shape \(12, 2, 6, 5\); images must be"),
        (IMAGES[:0], LABELS[:0], ValueError, "holds no image"),
        (np.zeros((2, 3, 4, 3), np.uint8), [0, 1], ValueError, "could be first or last"),
        (np.zeros((2, 9), np.uint8), [0, 1], ValueError, r"shape \(2, 9\)"),
        (IMAGES, LABELS[:-1], ValueError, "holds 12 images, but there are 11 labels"),
        (IMAGES, LABELS / 1, TypeError, "labels have dtype float64"),
        (IMAGES, np.where(np.arange(12) == 4, -1, LABELS), ValueError, "row 4: label -1 is out of"),
        (IMAGES, LABELS // 2 * 2, ValueError, r"class 1 \('1'\) is empty"),
    ],
)
def test_bad_arrays(
    tmp_path: Path, images: Any, labels: Any, error: type[Exception], message: str
) -> None:
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    with pytest.raises(error, match=message):
        open_dataset(tmp_path / "set.npz")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["images"], r"the labels are missing among its arrays \(images\)"),
        (["y_train"], "the images are missing"),
        (["arr_0", "arr_1"], r"none of its arrays \(arr_0, arr_1\) is known; an array of images"),
        (["x", "data", "y"], "both x and data could be the images"),
    ],
)
def test_unclear_names(tmp_path: Path, names: list[str], message: str) -> None:
    np.savez(tmp_path / "set.npz", **dict.fromkeys(names, IMAGES))
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path / "set.npz")


def test_pickles_are_refused(tmp_path: Path) -> None:
    evil = np.array([{"a": 1}], object)
    np.savez(tmp_path / "set.npz", images=evil, labels=LABELS)
    with pytest.raises(ValueError, match="allow_pickle"):
        open_dataset(tmp_path / "set.npz")
    np.save(tmp_path / "images.npy", evil)
    np.save(tmp_path / "labels.npy", LABELS)
    with pytest.raises(ValueError, match=r"images\.npy is not an \.npy file of numbers"):
        open_dataset(tmp_path)


def test_garbage(tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(b"not a zip file")
    with pytest.raises(ValueError, match=r"set\.npz is not an \.npz file"):
        open_dataset(tmp_path / "set.npz")
    np.savez_compressed(tmp_path / "cut.npz", images=IMAGES, labels=LABELS)
    content = bytearray((tmp_path / "cut.npz").read_bytes())
    content[200:400] = bytes(200)
    (tmp_path / "cut.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"cut\.npz, images\.npy: not an array of numbers"):
        open_dataset(tmp_path / "cut.npz")
