# SPDX-License-Identifier: Apache-2.0
"""Positions in small charts. What is drawn at them, and how it looks, is up to the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axis", "Bar", "Histogram", "histogram_of"]

_MOST_BINS = 24
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A linear map from values to positions.

    Attributes
    ----------
    low, high : float
        Values at the two ends; ``low < high``.
    start, end : float
        Positions of the two ends; ``start`` may be the larger one.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Position of a value, to a hundredth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float) -> Axis:
        """An axis on which all values lie, with a little room at the ends."""
        low, high = min(values), max(values)
        room = 0.04 * (high - low) or 0.01
        return cls(low=low - room, high=high + room, start=start, end=end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bin: its values ``low <= v < high``, how many there are, and where its bar is drawn."""

    low: float
    high: float
    count: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Bars from the bottom of a frame up, and the ticks of both axes."""

    bars: tuple[Bar, ...]
    x: Axis
    y: Axis
    x_ticks: tuple[float, ...]
    y_ticks: tuple[int, ...]


def histogram_of(
    values: NDArray[np.float64], *, left: float, right: float, top: float, bottom: float
) -> Histogram:
    """Count values that are not negative, in bins of a round width that begin at 0.

    Parameters
    ----------
    values : ndarray, shape (n,)
        At least one above 0.
    left, right, top, bottom : float
        The frame; y grows downward.
    """
    width = _round_up(float(values.max()) / _MOST_BINS)
    # A largest value on an edge needs the bin above that edge.
    bins = np.floor(values / width + 1e-9).astype(np.int64)
    counts = np.bincount(bins)
    every = _round_up(len(counts) * width / 6)
    tallest = _round_up(float(counts.max()) / 4, whole=True)
    x = Axis(low=0, high=len(counts) * width, start=left, end=right)
    y = Axis(low=0, high=tallest * math.ceil(counts.max() / tallest), start=bottom, end=top)
    return Histogram(
        bars=tuple(
            Bar(
                low=i * width,
                high=(i + 1) * width,
                count=int(count),
                x=x(i * width),
                y=y(count),
                width=round(x((i + 1) * width) - x(i * width), 2),
                height=round(bottom - y(count), 2),
            )
            for i, count in enumerate(counts)
        ),
        x=x,
        y=y,
        x_ticks=tuple(i * every for i in range(int(x.high / every + 1e-9) + 1)),
        y_ticks=tuple(range(0, int(y.high) + 1, int(tallest))),
    )


def _round_up(value: float, *, whole: bool = False) -> float:
    """The least of 1, 2, 2.5, 5 times a power of ten that is not below a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    rounded = (step * power for step in _STEPS if step * power >= value * (1 - 1e-9))
    return next(step for step in rounded if not whole or step == int(step))
