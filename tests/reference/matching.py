# SPDX-License-Identifier: Apache-2.0
"""Losses between lists of arrays in numpy and float64, as docstrings define them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK, CHAINS = 16 * 1024, 32


def exact_sum_of_squares(
    a: Sequence[NDArray[np.float64]], b: Sequence[NDArray[np.float64]]
) -> float:
    """Return ``sum (a - b)^2``, correctly rounded up to the rounding of each square."""
    return math.fsum(float(d) ** 2 for x, y in zip(a, b, strict=True) for d in (x - y).ravel())


def canonical_sum(terms: NDArray[np.float64], total: float = 0.0) -> float:
    """Return ``total`` plus a flat array, block by block as csrc/core/simd/chains.h adds each."""
    for first in range(0, len(terms), BLOCK):
        block = terms[first : first + BLOCK]
        padded = np.zeros(-(-len(block) // CHAINS) * CHAINS)
        padded[: len(block)] = block
        chains = np.zeros(CHAINS)
        for values in padded.reshape(-1, CHAINS):
            chains += values
        while len(chains) > 1:
            half = len(chains) // 2
            chains = chains[:half] + chains[half:]
        total += float(chains[0])
    return total


def canonical_sum_of_squares(
    a: Sequence[NDArray[np.float64]], b: Sequence[NDArray[np.float64]]
) -> float:
    """Return the same sum in the order that csrc/matching/trajectory/trajectory.h defines."""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total = canonical_sum((x - y).ravel() ** 2, total)
    return total


def canonical_sum_of_magnitudes(
    a: Sequence[NDArray[np.float64]], b: Sequence[NDArray[np.float64]]
) -> float:
    """Return ``sum |a - b|`` in that order."""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total = canonical_sum(np.abs(x - y).ravel(), total)
    return total


def canonical_row_products(
    a: Sequence[NDArray[np.float64]], b: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the sums of csrc/matching/cosine/cosine.h of all rows of matrices, shape (3, rows)."""
    pairs = [pair for x, y in zip(a, b, strict=True) for pair in zip(x, y, strict=True)]
    return np.array([[canonical_sum(t) for t in (x * y, x * x, y * y)] for x, y in pairs]).T


def row_cosine_distance(
    a: Sequence[NDArray[np.float64]], b: Sequence[NDArray[np.float64]]
) -> float:
    """Return ``sum 1 - <x, y> / (|x| |y| + 1e-6)`` over rows of arrays with two axes or more."""
    terms = []
    for x, y in zip(a, b, strict=True):
        if x.ndim > 1:
            for row, other in zip(x.reshape(len(x), -1), y.reshape(len(y), -1), strict=True):
                norms = np.linalg.norm(row) * np.linalg.norm(other)
                terms.append(1 - math.fsum(row * other) / (norms + 1e-6))
    return math.fsum(terms)


def class_means(
    values: NDArray[np.float64], labels: NDArray[np.int64], n_classes: int
) -> NDArray[np.float64]:
    """Return the mean of the rows of each class, which are added in their order."""
    sums = np.zeros((n_classes, values.shape[1]))
    for row, label in zip(values, labels, strict=True):
        sums[label] += row
    return sums / np.bincount(labels, minlength=n_classes)[:, None]


def mmd_means(
    x: NDArray[np.float64], y: NDArray[np.float64], rates: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the means of ``sum_s exp(-rates[s] |a - b|^2)`` over x and x, x and y, y and y."""
    return np.array([_kernels(a, b, rates).sum(0).mean() for a, b in ((x, x), (x, y), (y, y))])


def mmd_pull(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    rates: NDArray[np.float64],
    own: float,
    cross: float,
) -> NDArray[np.float64]:
    """Return the sums of csrc/matching/distribution.h."""
    total = np.zeros_like(x)
    for points, factor in ((x, own), (y, cross)):
        weights = np.tensordot(rates, _kernels(x, points, rates), 1)
        total += factor * np.einsum("ij,ijk->ik", weights, x[:, None] - points)
    return total


def _kernels(
    x: NDArray[np.float64], y: NDArray[np.float64], rates: NDArray[np.float64]
) -> NDArray[np.float64]:
    squares = ((x[:, None] - y) ** 2).sum(2)
    return np.exp(-rates[:, None, None] * squares)
