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
    """Return ``total`` plus a flat array, block by block as trajectory.h defines."""
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
