# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")

from ddkern.data import DistilledSet, Normalization
from ddkern.report.contact_sheet import (
    _Layout,
    _to_pixels,
    draw_contact_sheet,
    draw_distilled_set,
)


def _find(sheet: np.ndarray, grey: int) -> tuple[int, int]:
    """Row and column of the first pixel of a tile painted in one grey."""
    rows, columns = np.nonzero((sheet == grey).all(axis=2))
    return int(rows.min()), int(columns.min())


def test_rows_by_group_and_columns_by_descending_mass() -> None:
    levels = {(7, 0.2): 60, (7, 0.8): 90, (-1, 0.3): 120, (-1, 0.7): 150}
    sheet = np.asarray(
        draw_contact_sheet(
            np.stack([np.full((4, 4), level) for level in levels.values()]),
            [mass for _, mass in levels],
            [group for group, _ in levels],
            value_range=(0, 255),
        )
    )
    at = {key: _find(sheet, level) for key, level in levels.items()}
    assert at[-1, 0.7][0] == at[-1, 0.3][0] < at[7, 0.8][0] == at[7, 0.2][0]
    assert at[-1, 0.7][1] == at[7, 0.8][1] < at[-1, 0.3][1] == at[7, 0.2][1]


def test_small_images_are_enlarged_without_blur() -> None:
    image = np.array([[[0, 255], [255, 0]]])
    sheet = np.asarray(draw_contact_sheet(image, [1.0], [0]))
    row, column = _find(sheet, 0)
    tile = sheet[row : row + 64, column : column + 64, 0]
    np.testing.assert_array_equal(tile, np.kron(image[0], np.ones((32, 32))))


def test_colour_is_kept() -> None:
    red = np.zeros((1, 64, 64, 3))
    red[..., 0] = 1
    sheet = np.asarray(draw_contact_sheet(red, [1.0], [0]))
    assert (sheet == (255, 0, 0)).all(axis=2).sum() == 64 * 64


def test_reversed_range_inverts() -> None:
    x = np.array([[[0.0, 1.0]]])
    assert _to_pixels(x, (0, 1))[0, 0, :, 0].tolist() == [0, 255]
    assert _to_pixels(x, (1, 0))[0, 0, :, 0].tolist() == [255, 0]


def test_values_outside_the_range_saturate() -> None:
    assert _to_pixels(np.array([[[-5.0, 0.5, 9.0]]]), (0, 1))[0, 0, :, 0].tolist() == [0, 128, 255]


def test_constant_images_are_drawn() -> None:
    assert not _to_pixels(np.full((1, 2, 2), 3.0), None).any()


def test_names_and_title_make_room() -> None:
    image = np.zeros((1, 64, 64))
    plain = draw_contact_sheet(image, [1.0], [3])
    named = draw_contact_sheet(image, [1.0], [3], group_names={3: "a rather long name"})
    titled = draw_contact_sheet(image, [1.0], [3], title="a title that is wider than the tile is")
    assert named.width > plain.width
    assert titled.height > plain.height
    assert titled.width > plain.width


def test_layout_leaves_equal_margins() -> None:
    layout = _Layout(64, 64, label_width=0, header_height=0, caption_height=20)
    assert layout.tile_at(0, 0) == (28, 28)
    assert layout.sheet_size(1, 1) == (28 + 64 + 28, 28 + 64 + 20 + 28)


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4, 2), (1, 0, 4), (0, 4, 4)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images has shape"):
        draw_contact_sheet(np.zeros(shape), np.ones(1), np.zeros(1, int))


@pytest.mark.parametrize("name", ["weights", "groups"])
def test_wrong_length(name: str) -> None:
    arguments: dict[str, Any] = {"weights": [1.0], "groups": [0]}
    arguments[name] = [1, 1]
    with pytest.raises(ValueError, match=rf"{name} has shape \(2,\).*1 images"):
        draw_contact_sheet(np.zeros((1, 4, 4)), **arguments)


def test_empty_range() -> None:
    with pytest.raises(ValueError, match="value_range=.*must differ"):
        draw_contact_sheet(np.zeros((1, 4, 4)), [1.0], [0], value_range=(2, 2))


def test_distilled_set_is_drawn_with_its_classes_and_shares() -> None:
    levels = np.array([60, 90, 120, 150], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (4, 1, 4, 4)).copy()
    labels = np.array([1, 0, 1, 0])
    norm = Normalization.published("mnist")
    plain = DistilledSet(
        images, labels, normalization=norm, class_names=("a", "b"), sample_weight=[1, 6, 3, 2]
    )
    expected = draw_contact_sheet(
        images[:, 0],
        [0.25, 0.75, 0.75, 0.25],
        labels,
        group_names={0: "a", 1: "b"},
        value_range=(0, 255),
    )
    np.testing.assert_array_equal(draw_distilled_set(plain), expected)
    learned = DistilledSet(
        norm.apply(images),
        labels,
        normalization=norm,
        class_names=("a", "b"),
        sample_weight=[1, 6, 3, 2],
    )
    np.testing.assert_array_equal(draw_distilled_set(learned), expected)


def test_distilled_set_in_colour() -> None:
    images = np.zeros((1, 3, 64, 64), np.uint8)
    images[:, 0] = 255
    made = DistilledSet(images, [0], normalization=Normalization.identity(3))
    sheet = np.asarray(draw_distilled_set(made, title="red"))
    assert (sheet == (255, 0, 0)).all(axis=2).sum() == 64 * 64
