# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: centroids or distilled images, a row a group, captioned with their masses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ddkern.arrays import to_host
from ddkern.data import DistilledSet
from ddkern.typing import ArrayLike

__all__ = ["draw_contact_sheet", "draw_distilled_set"]

_PAPER = (250, 250, 248)
_INK = (32, 33, 36)
_QUIET_INK = (110, 113, 118)
_FRAME = (214, 214, 210)

_SMALLEST_TILE = 64  # pixels; smaller images are enlarged by a whole factor to at least this
_MARGIN = 28
_GAP = 12


@dataclass(frozen=True, slots=True)
class _Layout:
    """Positions in pixels; the sheet is a label column and a grid of captioned tiles."""

    tile_width: int
    tile_height: int
    label_width: int
    header_height: int
    caption_height: int

    def tile_at(self, row: int, column: int) -> tuple[int, int]:
        """Upper left corner of a tile."""
        return (
            _MARGIN + self.label_width + column * (self.tile_width + _GAP),
            _MARGIN + self.header_height + row * (self.tile_height + self.caption_height + _GAP),
        )

    def sheet_size(self, rows: int, columns: int) -> tuple[int, int]:
        """Width and height of a sheet with this many tiles."""
        right, bottom = self.tile_at(rows, columns)
        return right - _GAP + _MARGIN, bottom - _GAP + _MARGIN


def draw_contact_sheet(
    images: ArrayLike,
    weights: ArrayLike,
    groups: ArrayLike,
    *,
    group_names: Mapping[int, str] | None = None,
    title: str = "",
    value_range: tuple[float, float] | None = None,
) -> Image.Image:
    """Draw centroids as images: one row a group, by descending mass, the mass as caption.

    Parameters
    ----------
    images : array, shape (K, height, width) or (K, height, width, 3)
        The centroids.
    weights : array, shape (K,)
        Their masses.
    groups : array of int, shape (K,)
        Their group ids; rows are sorted by it.
    group_names : mapping from int to str, optional
        What to write beside each row; by default the id.
    title : str
        Written above the rows, if any.
    value_range : (float, float), optional
        The values shown as black and as white; the former may be the larger, which inverts the
        picture. By default the least and the largest value of ``images``.

    Returns
    -------
    PIL.Image.Image
        In RGB; ``.save(path)`` writes it.

    Raises
    ------
    ValueError
        If the shapes do not fit, or ``value_range`` is empty.
    """
    pixels = _to_pixels(images, value_range)
    mass = to_host(weights, "weights").as_dtype(np.float64)
    ids = to_host(groups, "groups").values
    for name, array in (("weights", mass), ("groups", ids)):
        if array.shape != pixels.shape[:1]:
            raise ValueError(
                f"{name} has shape {array.shape}; it must hold one entry for each of the "
                f"{len(pixels)} images"
            )
    rows = [np.flatnonzero(ids == i) for i in np.unique(ids)]
    rows = [row[np.argsort(-mass[row], kind="stable")] for row in rows]
    names = [_name_of(int(ids[row[0]]), group_names) for row in rows]
    tiles = _enlarge(pixels)
    return _compose(tiles, mass, rows, names, title)


def draw_distilled_set(distilled: DistilledSet, *, title: str = "") -> Image.Image:
    """Draw a distilled set: one row a class, by descending weight.

    Captions are shares of the weight of the class. Normalization is undone; values beyond black
    and white are cut off.

    Parameters
    ----------
    distilled : DistilledSet
    title : str
        Written above the rows, if any.

    Returns
    -------
    PIL.Image.Image
        In RGB; ``.save(path)`` writes it.
    """
    weight, labels = distilled.sample_weight, distilled.labels
    mass = np.bincount(labels, weights=weight)[labels]
    pixels = distilled.pixels().transpose(0, 2, 3, 1)
    return draw_contact_sheet(
        pixels[..., 0] if pixels.shape[3] == 1 else pixels,
        weight / mass,
        labels,
        group_names=dict(enumerate(distilled.class_names)),
        title=title,
        value_range=(0, 255),
    )


def _name_of(group: int, names: Mapping[int, str] | None) -> str:
    return str(group) if names is None else names[group]


def _to_pixels(images: ArrayLike, value_range: tuple[float, float] | None) -> NDArray[np.uint8]:
    values = to_host(images, "images").as_dtype(np.float64)
    if not (values.ndim == 3 or (values.ndim == 4 and values.shape[3] == 3)) or not values.size:
        raise ValueError(
            f"images has shape {values.shape}; it must be (K, height, width) or "
            "(K, height, width, 3), without an axis of 0"
        )
    black, white = (values.min(), values.max()) if value_range is None else value_range
    if black == white:
        if value_range is not None:
            raise ValueError(f"value_range={value_range}; its two values must differ")
        white = black + 1  # a constant picture comes out black
    unit = np.clip((values - black) / (white - black), 0.0, 1.0)
    grey_or_rgb = np.rint(unit * 255).astype(np.uint8)
    return grey_or_rgb if values.ndim == 4 else np.repeat(grey_or_rgb[..., None], 3, axis=3)


def _enlarge(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat pixels, so that small images stay sharp instead of blurred."""
    factor = max(1, -(-_SMALLEST_TILE // min(pixels.shape[1:3])))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)


def _compose(
    tiles: NDArray[np.uint8],
    mass: NDArray[np.float64],
    rows: Sequence[NDArray[Any]],
    names: Sequence[str],
    title: str,
) -> Image.Image:
    font = ImageFont.load_default(size=15)
    small = ImageFont.load_default(size=12)
    layout = _Layout(
        tile_width=tiles.shape[2],
        tile_height=tiles.shape[1],
        label_width=max(int(font.getlength(name)) for name in names) + 18,
        header_height=34 if title else 0,
        caption_height=20,
    )
    size = layout.sheet_size(len(rows), max(map(len, rows)))
    if title:
        size = (max(size[0], 2 * _MARGIN + int(font.getlength(title)) + 1), size[1])
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, font=font, fill=_INK, anchor="lt")
    for r, (row, name) in enumerate(zip(rows, names, strict=True)):
        _, top = layout.tile_at(r, 0)
        draw.text((_MARGIN, top + layout.tile_height // 2), name, font=font, fill=_INK, anchor="lm")
        for c, centroid in enumerate(row):
            left, _ = layout.tile_at(r, c)
            sheet.paste(Image.fromarray(tiles[centroid]), (left, top))
            right, bottom = left + layout.tile_width, top + layout.tile_height
            draw.rectangle((left - 1, top - 1, right, bottom), outline=_FRAME)
            draw.text(
                ((left + right) // 2, bottom + 5),
                f"{100 * mass[centroid]:.1f} %",
                font=small,
                fill=_QUIET_INK,
                anchor="mt",
            )
    return sheet
