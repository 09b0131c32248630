# SPDX-License-Identifier: Apache-2.0
"""Columns that the products of leading features rule out: the result never tells, the stats do."""

from __future__ import annotations

import functools

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

# Below 256 features the scores of centroids that stay are not kept; odd sizes end within a tile.
SHAPES = [(700, 64, 64), (1000, 128, 100), (1500, 131, 90), (640, 600, 70), (900, 515, 80)]
# Under the sanitizers the others take minutes.
SHAPES_TO_PASS = [pytest.param(SHAPES[0], marks=pytest.mark.sanitize), *SHAPES[1:]]


def with_spectrum(n: int, d: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows with standard deviations 1 / sqrt(1 + j), in pieces of 16 features in any order."""
    rng = np.random.default_rng([n, d, seed])
    x = (rng.normal(size=(n, d)) / np.sqrt(1 + np.arange(d))).astype(np.float32)
    pieces = np.split(x, np.arange(16, d, 16), axis=1)
    return np.concatenate([pieces[i] for i in rng.permutation(len(pieces))], axis=1)


def multiplies_bytes(isa: str) -> bool:
    return isa in ("avx512vnni", "avx512bf16")


def tails_that_decide(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows and seeds for which Cauchy and Schwarz is an equality and settles who is nearest.

    32 far centres, and around each two cells that differ in the first feature. The last 48
    features of a row, its tail, are one direction or its opposite: in nine of ten rows the one
    that belongs to its cell. So the means of the cells have tails, and in the second pass the
    other rows leave for the cell that their tails point to, unless the first feature holds them.
    """
    rng = np.random.default_rng(seed)
    centres = np.zeros((32, 64))
    centres[:, :16] = 40 * rng.normal(size=(32, 16))
    seeds = np.repeat(centres, 2, axis=0)
    seeds[0::2, 0] += 1
    seeds[1::2, 0] -= 1
    side = rng.choice([-1.0, 1.0], n)
    x = centres[rng.integers(0, 32, n)]
    x[:, 0] += side * rng.uniform(0, 200, n)
    points_to = np.where(rng.random(n) < 0.9, side, -side)
    x[:, 16:] = (points_to * 60 / np.sqrt(48))[:, None]
    return x.astype(np.float32), seeds.astype(np.float32)


# Nearly every product of a pass that is misled is taken again in float64: one number for each.
ITERATIONS = {"": (1, 2, 4), "closer": (2,), "apart": (4,)}


@pytest.mark.parametrize("shape", SHAPES_TO_PASS, ids=str)
@pytest.mark.parametrize("mislead", ITERATIONS)
def test_exact(
    isa: str,
    mislead: str,
    shape: tuple[int, int, int],
    answers: Answers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where heads are off by all that their bounds and the tails allow."""
    n, d, k = shape
    x = with_spectrum(n, d)
    monkeypatch.setenv("DDKERN_DEBUG_MISLEAD", mislead)
    for max_iter in ITERATIONS[mislead]:
        result = ddkern.quantize(
            x, k, algorithm="streaming", init=x[-k:], max_iter=max_iter, n_threads=2
        )
        wrong = (result.assignment != answers.nearest(x, result.centroids)).sum()
        assert wrong == 0, f"{wrong} rows after {max_iter} iterations"
        skipped = result.stats.products_skipped.item()
        assert (skipped > 0) == multiplies_bytes(isa)


def converged(dtype: str, shape: tuple[int, int, int]) -> ddkern.QuantizeResult:
    """Quantize from seeds, with weights of which some are 0."""
    n, d, k = shape
    x = with_spectrum(n, d, seed=1).astype(dtype)
    weights = np.random.default_rng(2).choice([0.0, 0.5, 1.0, 3.0], n)
    return ddkern.quantize(
        x, k, algorithm="streaming", sample_weight=weights, random_state=3, n_threads=2
    )


@functools.cache
def converged_without(dtype: str, shape: tuple[int, int, int]) -> ddkern.QuantizeResult:
    """The same by `base`, which knows no heads."""
    with forced_isa("base"):
        return converged(dtype, shape)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [*(("float32", shape) for shape in SHAPES), ("float64", SHAPES[0]), ("float64", SHAPES[3])],
    ids=str,
)
def test_same_bits_as_without(isa: str, dtype: str, shape: tuple[int, int, int]) -> None:
    expected = converged_without(dtype, shape)
    assert expected.stats.products_skipped.item() == 0
    if isa != "base":
        assert_same_bits(converged(dtype, shape), expected)


@pytest.mark.parametrize("seed", range(4))
def test_tails_decide(isa: str, seed: int, answers: Answers) -> None:
    """Red when tails count for a tenth less than they may."""
    x, seeds = tails_that_decide(4000, seed)
    first = ddkern.assign(x, seeds)
    result = ddkern.quantize(x, len(seeds), algorithm="streaming", init=seeds, max_iter=1)
    assert (result.assignment != first).sum() > 50, "nobody followed a tail"
    np.testing.assert_array_equal(result.assignment, answers.nearest(x, result.centroids))
    assert (result.stats.products_skipped.item() > 0) == multiplies_bytes(isa)


def test_features_that_are_alike_have_no_head(isa: str) -> None:
    x = np.random.default_rng(0).normal(size=(600, 128)).astype(np.float32)
    assert ddkern.quantize(x, 80, random_state=0).stats.products_skipped.item() == 0


def test_rows_of_any_size(isa: str, answers: Answers) -> None:
    """Rows far beyond those that the layout was made from leave nothing to heads."""
    x = with_spectrum(240, 96)
    x[1] = 1e20
    x[201] = -1e25
    result = ddkern.quantize(x, 70, algorithm="streaming", random_state=0, max_iter=3)
    np.testing.assert_array_equal(result.assignment, answers.nearest(x, result.centroids))


def test_levels_with_heads_are_known() -> None:
    """`multiplies_bytes` above lists the levels that report products of bytes."""
    x = with_spectrum(64, 16)
    for level in _core.isa_available():
        with forced_isa(level):
            products = ddkern.quantize(x, 2, algorithm="streaming", random_state=0).stats.products
        assert (products == ("bytes",)) == multiplies_bytes(level)
