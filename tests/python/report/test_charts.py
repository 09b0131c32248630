# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PIL")

from ddkern.report.charts import Axis, Histogram, histogram_of

FRAME = {"left": 10.0, "right": 210.0, "top": 5.0, "bottom": 105.0}


def drawn(values: object) -> Histogram:
    return histogram_of(np.asarray(values, np.float64), **FRAME)


def test_axis_is_linear_and_may_point_upward() -> None:
    axis = Axis(low=1, high=3, start=100, end=20)
    assert [axis(value) for value in (1, 1.5, 2, 3)] == [100, 80, 60, 20]


def test_axis_around_values_has_room() -> None:
    axis = Axis.around([0.5, 0.2, 0.3], 0, 100)
    assert 0 < axis(0.2) < axis(0.3) < axis(0.5) < 100
    assert Axis.around([0.5], 0, 100)(0.5) == 50


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1, 7, 1e6])
def test_every_value_is_counted_in_its_bin(scale: float) -> None:
    values = np.random.default_rng(0).gamma(2, scale, 500)
    found = drawn(values)
    assert len(found.bars) <= 25
    assert sum(bar.count for bar in found.bars) == 500
    for bar in found.bars:
        assert bar.count == ((values >= bar.low) & (values < bar.high)).sum()
    assert found.bars[0].low == 0
    assert found.bars[-1].high > values.max()


def test_edges_belong_to_the_bin_above() -> None:
    # In binary 0.3 / 0.1 is below 3; the bins have the width 0.1.
    found = drawn([i / 10 for i in range(24)])
    assert [bar.count for bar in found.bars] == [1] * 24


def test_bars_fill_the_frame_in_proportion() -> None:
    found = drawn([0.5, 0.5, 0.5, 0.5, 1.9])
    tall = next(bar for bar in found.bars if bar.count == 4)
    low = next(bar for bar in found.bars if bar.count == 1)
    assert tall.y == found.y(4)
    assert tall.y + tall.height == low.y + low.height == 105
    assert tall.height == pytest.approx(4 * low.height)
    assert found.bars[0].x == 10
    assert found.bars[-1].x + found.bars[-1].width == pytest.approx(210)


@pytest.mark.parametrize("largest", [0.7, 1, 1.3, 2.6, 4.5, 19, 333])
def test_ticks_are_few_round_and_inside(largest: float) -> None:
    found = drawn(np.linspace(0.1, largest, 77))
    assert 3 <= len(found.x_ticks) <= 7
    assert found.x_ticks[0] == 0
    assert found.x_ticks[-1] <= found.x.high * (1 + 1e-9)
    assert 2 <= len(found.y_ticks) <= 6
    assert found.y_ticks[-1] == found.y.high >= max(bar.count for bar in found.bars)
    step = found.x_ticks[1]
    assert float(f"{step:.2g}") == pytest.approx(step, rel=1e-12)


def test_equal_values_are_one_bar() -> None:
    found = drawn([1.0] * 7)
    assert [(bar.low, bar.count) for bar in found.bars if bar.count] == [(pytest.approx(1), 7)]


def test_a_single_value_has_whole_ticks() -> None:
    assert drawn([1.0]).y_ticks == (0, 1)
