# SPDX-License-Identifier: Apache-2.0
"""The oracle against fractions, and proof that its later stages are needed and reached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reference import oracle


def ranking_by_fractions(x: NDArray[Any], centroids: NDArray[Any]) -> NDArray[np.int64]:
    """Order all centroids of each row by exact distance, then index."""
    order = [
        sorted(range(len(centroids)), key=lambda k: (oracle.exact_distance(row, centroids[k]), k))
        for row in x
    ]
    return np.array(order, np.int64)


def near_ties(rng: np.random.Generator, n: int, d: int, k: int) -> tuple[Any, Any]:
    """Return rows within a few float32 steps of the middle between two centroids."""
    centroids = rng.normal(size=(k, d)).astype(np.float32)
    pairs = rng.integers(0, k, (n, 2))
    x = ((centroids[pairs[:, 0]] + centroids[pairs[:, 1]]) / 2).astype(np.float32)
    steps = rng.integers(-1, 2, x.shape).astype(np.int32)
    return (x.view(np.int32) + steps).view(np.float32), centroids


def grid(rng: np.random.Generator, n: int, d: int, k: int) -> tuple[Any, Any]:
    """Return small integers, which tie often."""
    return (
        rng.integers(-2, 3, (n, d)).astype(np.float32),
        rng.integers(-2, 3, (k, d)).astype(np.float32),
    )


def far_offset(rng: np.random.Generator, n: int, d: int, k: int) -> tuple[Any, Any]:
    """Return values a million standard deviations from 0."""
    return (
        (1e6 + rng.normal(size=(n, d))).astype(np.float32),
        (1e6 + rng.normal(size=(k, d))).astype(np.float32),
    )


def wide_range(rng: np.random.Generator, n: int, d: int, k: int) -> tuple[Any, Any]:
    """Return float64 values whose squares leave the range of float64 on both sides."""
    scale = 10.0 ** rng.integers(-300, 300, (1, d))
    return rng.normal(size=(n, d)) * scale, rng.normal(size=(k, d)) * scale


@pytest.mark.parametrize("make", [near_ties, grid, far_offset, wide_range])
@pytest.mark.parametrize(("n", "d", "k"), [(40, 1, 5), (40, 3, 12), (25, 33, 7)])
def test_agrees_with_fractions(make: Any, n: int, d: int, k: int) -> None:
    x, centroids = make(np.random.default_rng(7), n, d, k)
    expected = ranking_by_fractions(x, centroids)
    np.testing.assert_array_equal(oracle.nearest(x, centroids), expected[:, 0])
    for m in (2, k):
        np.testing.assert_array_equal(oracle.nearest_few(x, centroids, m), expected[:, :m])


def test_duplicate_centroids_tie_to_the_lowest_index() -> None:
    x = np.array([[0.0], [5.0]], np.float32)
    centroids = np.array([[4.0], [0.0], [-0.0], [4.0]], np.float32)
    np.testing.assert_array_equal(oracle.nearest_few(x, centroids, 3), [[1, 2, 0], [0, 3, 1]])


def test_equal_distances_on_both_sides_tie_to_the_lowest_index() -> None:
    x = np.zeros((1, 2), np.float32)
    centroids = np.array([[3, 3], [0, 1], [-1, 0], [1, 0]], np.float32)
    np.testing.assert_array_equal(oracle.nearest_few(x, centroids, 4), [[1, 2, 3, 0]])


def test_float64_alone_would_be_wrong() -> None:
    """A pair 2^-53 apart in distance: the third stage decides, and the plain formula does not."""
    big = 2.0**60
    x = np.array([[big, 1.0]])
    centroids = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    plain = ((x - centroids) ** 2).sum(axis=1)
    assert plain.argmin() == 0
    counts = oracle.Counts()
    assert oracle.nearest(x, centroids, counts)[0] == 1
    assert counts.exact > 0


def test_well_separated_rows_never_leave_the_first_stage() -> None:
    rng = np.random.default_rng(3)
    centroids = rng.normal(size=(8, 50)).astype(np.float32)
    x = np.repeat(centroids, 4, axis=0) + np.float32(0.01)
    counts = oracle.Counts()
    np.testing.assert_array_equal(oracle.nearest(x, centroids, counts), np.repeat(np.arange(8), 4))
    assert counts == oracle.Counts(0, 0)
