# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

for _package in ("PIL", "safetensors", "sklearn", "torch"):
    pytest.importorskip(_package)

from PIL import Image  # noqa: E402

from ddkern.data import DistilledSet, Normalization  # noqa: E402
from ddkern.report import Run, read_run  # noqa: E402
from ddkern.report.run_folder import Picture  # noqa: E402
from ddkern.report.tiles import class_rows, relative_masses, tile_size  # noqa: E402
from helpers.distilled import make_set  # noqa: E402


def pixels_of(picture: Picture) -> np.ndarray:
    """Decode to (channels, height, width)."""
    image = np.asarray(Image.open(io.BytesIO(picture.content)))
    assert image.shape[:2] == (picture.height, picture.width)
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def run_of(folder: Path, distilled: DistilledSet, real: np.ndarray | None = None) -> Run:
    distilled.save(folder / "set.safetensors")
    if real is not None:
        np.save(folder / "nearest_real.npy", real)
    return read_run(folder)


@pytest.mark.parametrize("kind", ["pixels", "floats", "low_rank"])
def test_images_by_falling_mass_with_their_real_ones(tmp_path: Path, kind: str) -> None:
    weight = np.array([0.1, 1.0, 3.0, 2.0, 1.0, 0.3])  # labels 2, 0, 1, 0, 1, 2
    distilled = make_set(kind, sample_weight=weight)
    real = np.random.default_rng(3).integers(0, 256, (6, 3, 4, 4), np.uint8)
    rows = class_rows(run_of(tmp_path, distilled, real), 9)
    assert [row.name for row in rows] == ["cat", "dog/wolf", "owl"]
    expected = [([3, 1], [4 / 3, 2 / 3]), ([2, 4], [1.5, 0.5]), ([5, 0], [1.5, 0.5])]
    pixels = distilled.pixels()
    for row, (order, masses) in zip(rows, expected, strict=True):
        assert [tile.mass for tile in row.tiles] == pytest.approx(masses)
        assert row.images == 2
        for tile, place in zip(row.tiles, order, strict=True):
            np.testing.assert_array_equal(pixels_of(tile.image), pixels[place])
            assert tile.nearest_real is not None
            np.testing.assert_array_equal(pixels_of(tile.nearest_real), real[place])
    assert rows[1].effective_images == pytest.approx(16 / 10)


def test_grey_images_without_real_ones(tmp_path: Path) -> None:
    images = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
    distilled = DistilledSet(images, [0, 0], normalization=Normalization.identity(1))
    (row,) = class_rows(run_of(tmp_path, distilled), 1)
    assert [tile.nearest_real for tile in row.tiles] == [None, None]
    # Of equal mass, the first of the set comes first.
    np.testing.assert_array_equal([pixels_of(tile.image) for tile in row.tiles], images)


def test_first_classes_and_heaviest_images(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], 23)
    distilled = DistilledSet(
        np.zeros((69, 1, 2, 2), np.uint8),
        labels,
        normalization=Normalization.identity(1),
        sample_weight=np.tile(np.arange(1.0, 24), 3),
    )
    rows = class_rows(run_of(tmp_path, distilled), 2)
    assert [(row.name, row.images, len(row.tiles)) for row in rows] == [
        ("0", 23, 20),
        ("1", 23, 20),
    ]
    assert [tile.mass * 12 for tile in rows[0].tiles] == pytest.approx(list(range(23, 3, -1)))
    assert rows[0].effective_images == pytest.approx(276**2 / 4324)


def test_masses_of_extreme_weights() -> None:
    weight = [1e-300, 3e-300, 1e308, 1e308, 5.0, 0.0]
    distilled = DistilledSet(
        np.zeros((6, 1, 2, 2), np.uint8),
        [0, 0, 1, 1, 2, 2],
        normalization=Normalization.identity(1),
        sample_weight=weight,
    )
    assert relative_masses(distilled) == pytest.approx([0.5, 1.5, 1, 1, 2, 0])


def test_equal_masses_are_exactly_1() -> None:
    distilled = make_set(sample_weight=np.full(6, 0.1))
    assert (relative_masses(distilled) == 1).all()


def test_large_images_are_reduced(tmp_path: Path) -> None:
    images = np.zeros((1, 3, 100, 300), np.uint8)
    images[:, 0] = 200
    distilled = DistilledSet(images, [0], normalization=Normalization.identity(3))
    (row,) = class_rows(run_of(tmp_path, distilled), 1)
    picture = row.tiles[0].image
    assert (picture.width, picture.height) == (128, 43)
    assert (pixels_of(picture)[0] == 200).all()
    assert not pixels_of(picture)[1:].any()


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (8, 8, (64, 64)),
        (28, 28, (84, 84)),
        (32, 32, (64, 64)),
        (64, 64, (64, 64)),
        (6, 5, (78, 65)),
        (96, 80, (96, 80)),
        (128, 128, (96, 96)),
        (128, 64, (96, 48)),
    ],
)
def test_sizes_on_the_page(width: int, height: int, expected: tuple[int, int]) -> None:
    assert tile_size(Picture(content=b"", width=width, height=height)) == expected
