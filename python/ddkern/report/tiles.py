# SPDX-License-Identifier: Apache-2.0
"""Distilled images and their masses, class by class, as a page shows them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddkern.data import DistilledSet
from ddkern.report.run_folder import Picture, Run

__all__ = ["ClassRow", "Tile", "class_rows", "relative_masses", "tile_size"]

_MOST_TILES = 20  # of a class
_LARGEST_SIDE = 128  # pixels; larger images are reduced to it, for the size of the page
_SMALLEST_TILE = 64  # on the page; smaller images are enlarged by a whole factor to at least this
_LARGEST_TILE = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A distilled image.

    Attributes
    ----------
    image : Picture
    nearest_real : Picture or None
    mass : float
        Relative to the mean of the class.
    """

    image: Picture
    nearest_real: Picture | None
    mass: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """A class and its heaviest images, by falling mass.

    Attributes
    ----------
    name : str
    images : int
        How many there are, shown or not.
    effective_images : float
        ``(sum w)**2 / sum w**2``: how many images of equal mass the masses are worth.
    tiles : tuple of Tile
    """

    name: str
    images: int
    effective_images: float
    tiles: tuple[Tile, ...]


def relative_masses(distilled: DistilledSet) -> NDArray[np.float64]:
    """Weights divided by their mean over the class, shape (n,)."""
    labels, weight = distilled.labels, distilled.sample_weight
    largest = np.zeros(distilled.n_classes)
    np.maximum.at(largest, labels, weight)
    # Divided by the largest first: sums of very large or small weights leave the range.
    scaled = weight / largest[labels]
    mean = np.bincount(labels, weights=scaled) / distilled.class_counts
    return np.asarray(scaled / mean[labels], np.float64)


def class_rows(run: Run, most: int) -> tuple[ClassRow, ...]:
    """The first ``most`` classes."""
    mass = relative_masses(run.distilled)
    return tuple(_row(run, label, mass) for label in range(min(most, run.distilled.n_classes)))


def tile_size(picture: Picture) -> tuple[int, int]:
    """Width and height of an image on the page, in CSS pixels."""
    side = min(picture.width, picture.height)
    if side < _SMALLEST_TILE:
        factor = -(-_SMALLEST_TILE // side)
        return picture.width * factor, picture.height * factor
    scale = min(1.0, _LARGEST_TILE / max(picture.width, picture.height))
    return round(picture.width * scale), round(picture.height * scale)


def _row(run: Run, label: int, mass: NDArray[np.float64]) -> ClassRow:
    rows = np.flatnonzero(run.distilled.labels == label)
    rows = rows[np.argsort(-mass[rows], kind="stable")]
    shown = rows[:_MOST_TILES]
    pixels = run.distilled.pixels(shown)
    real = None if run.nearest_real is None else run.nearest_real[shown]
    return ClassRow(
        name=run.distilled.class_names[label],
        images=len(rows),
        effective_images=float(mass[rows].sum() ** 2 / np.square(mass[rows]).sum()),
        tiles=tuple(
            Tile(
                image=_picture_of(pixels[i]),
                nearest_real=None if real is None else _picture_of(real[i]),
                mass=float(mass[row]),
            )
            for i, row in enumerate(shown)
        ),
    )


def _picture_of(pixels: NDArray[np.uint8]) -> Picture:
    """An image (channels, height, width) as PNG, reduced where it is large."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    if max(image.size) > _LARGEST_SIDE:
        image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return Picture(content=stream.getvalue(), width=image.width, height=image.height)
