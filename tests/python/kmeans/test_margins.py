# SPDX-License-Identifier: Apache-2.0
"""Columns that an earlier pass rules out, over rows sorted by cell: the result never tells."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ddkern
from ddkern import _core
from helpers.answers import Answers
from helpers.bits import assert_same_bits
from helpers.isa import forced_isa

pytestmark = [
    pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::ddkern.EmptyCellWarning"),
]

# Enough rows a cell for margins; from 64 columns and with this spectrum bytes have heads as well;
# below 256 features the products of centroids that stay are not kept.
SHAPES = [(1400, 20, 24), (2000, 300, 32), (2599, 131, 50), (3300, 64, 64), (3250, 258, 65)]
# Under the sanitizers the others take minutes.
SHAPES_TO_PASS = [pytest.param(SHAPES[0], marks=pytest.mark.sanitize), *SHAPES[1:]]


def rows_of(n: int, d: int, seed: int = 0) -> NDArray[np.float32]:
    """Clusters that overlap, with a spectrum that falls off: many passes, few moves in the last."""
    rng = np.random.default_rng([n, d, seed])
    spectrum = 1 / np.sqrt(1 + np.arange(d))
    centres = 1.5 * rng.normal(size=(40, d)) * spectrum
    x = centres[rng.integers(0, 40, n)] + rng.normal(size=(n, d)) * spectrum
    return x.astype(np.float32)


# Nearly every product of a pass that is misled is taken again in float64: one pass for each shape.
ITERATIONS = {"": (8, 11, 300), "closer": (8,), "apart": (11,)}


@pytest.mark.parametrize("shape", SHAPES_TO_PASS, ids=str)
@pytest.mark.parametrize("mislead", ITERATIONS)
def test_exact_after_any_pass(
    isa: str,
    mislead: str,
    shape: tuple[int, int, int],
    answers: Answers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where every score makes the margins as large as it may."""
    n, d, k = shape
    x = rows_of(n, d)
    monkeypatch.setenv("DDKERN_DEBUG_MISLEAD", mislead)
    skipped = 0
    for max_iter in ITERATIONS[mislead]:
        result = ddkern.quantize(
            x, k, algorithm="streaming", init=x[:k], max_iter=max_iter, tol=0, n_threads=2
        )
        wrong = (result.assignment != answers.nearest(x, result.centroids)).sum()
        assert wrong == 0, f"{wrong} rows after {max_iter} iterations"
        skipped = result.stats.products_skipped.item()
    if mislead != "closer":  # which leaves next to nothing certain
        assert skipped > 0


def converged(dtype: str, shape: tuple[int, int, int], **variant: Any) -> ddkern.QuantizeResult:
    """Quantize from seeds, with weights of which some are 0."""
    n, d, k = shape
    x = rows_of(n, d, seed=1).astype(dtype)
    weights = np.random.default_rng(2).choice([0.0, 0.5, 1.0, 3.0], n)
    return ddkern.quantize(x, k, sample_weight=weights, random_state=3, tol=0, **variant)


@cache
def converged_without(dtype: str, shape: tuple[int, int, int]) -> ddkern.QuantizeResult:
    """The same in Gram space, at the fastest level."""
    with forced_isa(_core.isa_available()[-1]):
        return converged(dtype, shape, algorithm="gram", n_threads=1)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [*(("float32", shape) for shape in SHAPES), *(("float64", shape) for shape in SHAPES[:2])],
    ids=str,
)
def test_same_bits_as_without(isa: str, dtype: str, shape: tuple[int, int, int]) -> None:
    result = converged(dtype, shape, algorithm="streaming", n_threads=3)
    assert result.stats.products_skipped.item() > 0
    expected = converged_without(dtype, shape)
    assert expected.stats.products_skipped.item() == 0
    assert_same_bits(result, expected)


LONG_ROWS: dict[str, Any] = {"random_state": 0, "tol": 0, "algorithm": "streaming"}


@cache
def long_rows_at_the_fastest_level() -> ddkern.QuantizeResult:
    with forced_isa(_core.isa_available()[-1]):
        return ddkern.quantize(rows_of(1300, 900, seed=4), 24, n_threads=1, **LONG_ROWS)


# A little more than two megabytes have room for margins, not for blocks in any format.
@pytest.mark.parametrize("max_memory", [9 << 18, 64 << 20])
def test_same_bits_in_any_memory(isa: str, max_memory: int) -> None:
    """Blocks that are packed anew in every pass follow the order of the rows."""
    x = rows_of(1300, 900, seed=4)
    result = ddkern.quantize(x, 24, n_threads=2, max_memory=max_memory, **LONG_ROWS)
    assert result.stats.products_skipped.item() > 0
    assert_same_bits(result, long_rows_at_the_fastest_level())


def test_a_centroid_that_jumps(isa: str, answers: Answers) -> None:
    """A cell that is seeded again far away is near to rows whose margins knew nothing of it.

    Duplicate seeds leave cells empty at first; others lose their rows on the way.
    """
    rng = np.random.default_rng(5)
    x = rows_of(2000, 40, seed=6)
    seeds = x[rng.integers(0, 200, 36)]
    seeds[12:] = seeds[rng.integers(0, 12, 24)] + 1e-3 * rng.normal(size=(24, 40))
    for max_iter in (8, 10, 12, 14, 17, 20, 300):
        result = ddkern.quantize(
            x, 36, algorithm="streaming", init=seeds.astype(np.float32), max_iter=max_iter, tol=0
        )
        np.testing.assert_array_equal(result.assignment, answers.nearest(x, result.centroids))


def test_rows_of_any_size(isa: str, answers: Answers) -> None:
    """Rows beyond float32's comfort are never certain, wherever they are sorted to."""
    x = rows_of(1800, 48)
    x[3] = 1e20
    x[1000] = -1e25
    result = ddkern.quantize(x, 30, algorithm="streaming", random_state=0, tol=0, max_iter=12)
    np.testing.assert_array_equal(result.assignment, answers.nearest(x, result.centroids))


def test_restarts_begin_with_rows_in_order(isa: str) -> None:
    """The first restart draws and finds what a run of its own does."""
    x = rows_of(2000, 64, seed=7)
    one = ddkern.quantize(x, 24, algorithm="streaming", random_state=1, tol=0)
    several = ddkern.quantize(x, 24, algorithm="streaming", random_state=1, tol=0, n_init=3)
    assert several.distortion.item() <= one.distortion.item()
    if several.stats.restart.item() == 0:
        assert_same_bits(several, one)
