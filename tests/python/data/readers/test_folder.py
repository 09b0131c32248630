# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from ddkern.data import open_dataset
from helpers.datasets import NAMES, make_images, png, write_tree

IMAGES, LABELS = make_images()
ORDER = np.argsort(LABELS, kind="stable")


def test_classes_in_the_order_of_names(tmp_path: Path) -> None:
    write_tree(tmp_path, IMAGES, LABELS)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "dog" / ".thumbnails").mkdir()
    (tmp_path / "dog" / ".thumbnails" / "0.png").write_text("not an image")
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / "dog" / ".hidden.png").write_text("not an image")
    data = open_dataset(tmp_path)
    assert data.class_names == NAMES
    assert data.split is None
    np.testing.assert_array_equal(data.labels, LABELS[ORDER])
    np.testing.assert_array_equal(data.images(), IMAGES[ORDER])


def test_images_deeper_in_a_class(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "images" / "0.PNG").write_bytes(png(IMAGES[0]))
    assert open_dataset(tmp_path).class_counts.tolist() == [1, 1]


def test_splits(tmp_path: Path) -> None:
    write_tree(tmp_path / "train", IMAGES, LABELS)
    write_tree(tmp_path / "val", IMAGES[::-1], LABELS[::-1])
    assert open_dataset(tmp_path).split == "train"
    validation = open_dataset(tmp_path, split="val")
    assert validation.split == "validation"
    expected = IMAGES[::-1][np.argsort(LABELS[::-1], kind="stable")]
    np.testing.assert_array_equal(validation.images(), expected)
    with pytest.raises(ValueError, match="has no split 'test'; its splits are"):
        open_dataset(tmp_path, split="test")


def test_a_class_called_test(tmp_path: Path) -> None:
    write_tree(tmp_path, IMAGES, LABELS, ("exam", "quiz", "test"))
    data = open_dataset(tmp_path)
    assert data.class_names == ("exam", "quiz", "test")
    with pytest.raises(ValueError, match="has no split 'test'; it has no splits"):
        open_dataset(tmp_path, split="test")


def test_several_splits_without_a_train_one(tmp_path: Path) -> None:
    write_tree(tmp_path / "test", IMAGES, LABELS)
    assert open_dataset(tmp_path).split == "test"
    write_tree(tmp_path / "val", IMAGES, LABELS)
    with pytest.raises(ValueError, match="splits 'test', 'validation'; choose one with split="):
        open_dataset(tmp_path)


def test_corrupt_image(tmp_path: Path) -> None:
    write_tree(tmp_path, IMAGES, LABELS)
    row = int(ORDER[7])
    victim = tmp_path / NAMES[LABELS[row]] / f"{row:04d}.png"
    victim.write_bytes(victim.read_bytes()[:40])
    with pytest.raises(ValueError, match=rf"{victim} \(row 7\): corrupt image"):
        open_dataset(tmp_path).check()


def test_image_without_a_class(tmp_path: Path) -> None:
    write_tree(tmp_path, IMAGES, LABELS)
    (tmp_path / "stray.png").write_bytes(png(IMAGES[0]))
    with pytest.raises(ValueError, match=r"stray\.png: the label is missing"):
        open_dataset(tmp_path)


def test_empty_class(tmp_path: Path) -> None:
    write_tree(tmp_path, IMAGES, LABELS)
    (tmp_path / "emu").mkdir()
    (tmp_path / "emu" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"emu: class 2 \('emu'\) is empty"):
        open_dataset(tmp_path)


def test_mixed_sizes(tmp_path: Path) -> None:
    write_tree(tmp_path, IMAGES, LABELS)
    (tmp_path / "owl" / "wide.png").write_bytes(png(np.zeros((3, 6, 9), np.uint8)))
    with pytest.raises(ValueError, match=r"wide\.png \(row 12\): mixed sizes: the image is 6 x 9"):
        open_dataset(tmp_path).check()


def test_grey_and_colour(tmp_path: Path) -> None:
    write_tree(tmp_path, IMAGES, LABELS)
    (tmp_path / "owl" / "zgrey.png").write_bytes(png(IMAGES[0, :1]))
    data = open_dataset(tmp_path)
    np.testing.assert_array_equal(data.images([12])[0], np.repeat(IMAGES[0, :1], 3, axis=0))
    (tmp_path / "cat" / "0.png").write_bytes(png(IMAGES[0, :1]))
    with pytest.raises(ValueError, match=r"\(row 1\): the image is in colour"):
        open_dataset(tmp_path).check()
    assert open_dataset(tmp_path, channels=3).images().shape == (14, 3, 6, 5)
    assert open_dataset(tmp_path, channels=1).images().shape == (14, 1, 6, 5)
