# SPDX-License-Identifier: Apache-2.0
"""What an implementation must be able to do to be measured."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from bench.shapes import Float32, Problem

TOLERANCE = 1e-4  # of the end-to-end runs, relative to the mean variance of the features
MAX_ITERATIONS = 300


@dataclass(frozen=True)
class Fit:
    """What came out of one timed call.

    Attributes
    ----------
    centroids : (groups * k, d) float32
    n_iter : list of int
        Iterations really executed, one number a group (of the restart that was kept).
    notes : dict
        JSON-ready facts about how it was done, for example the variant chosen.
    """

    centroids: Float32
    n_iter: list[int]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Draw:
    """What is random in one end-to-end run.

    Attributes
    ----------
    random_state : int
        For libraries that draw their own seeds.
    seeds : list of (groups * k, d) float32
        For the others: greedy k-means++ seeds, one array a restart.
    """

    random_state: int
    seeds: list[Float32]


class Implementation(Protocol):
    """One library under one thread limit, in a process of its own.

    ``lloyd`` and ``fit`` are timed as a whole: they get C-contiguous float32 arrays, and every
    conversion, copy, centring or packing is part of what they are measured at.
    """

    needs_seeds: bool  # True: `fit` takes greedy k-means++ seeds drawn (and timed) elsewhere

    def versions(self) -> dict[str, str]:
        """Version strings of everything that computes here."""
        ...

    def facts(self) -> dict[str, Any]:
        """JSON-ready facts about the set-up, for example the instruction set in use."""
        ...

    def prepare(self, problem: Problem, seeds: Float32) -> None:
        """Untimed: start thread pools, choose between variants."""
        ...

    def lloyd(self, problem: Problem, seeds: Float32) -> Fit:
        """Exactly ``problem.shape.iterations`` Lloyd iterations from ``seeds``, every group."""
        ...

    def fit(self, problem: Problem, draw: Draw) -> Fit:
        """Seeding, Lloyd to `TOLERANCE` and restarts, every group."""
        ...


def first_group(problem: Problem, k: int = 2) -> Problem:
    """Return a small problem for warming up: the first group, few centroids, one iteration."""
    shape = replace(problem.shape, groups=1, k=min(k, problem.shape.k), iterations=1)
    return Problem(problem.rows(0), np.zeros(shape.n, dtype=np.int64), shape)


def group_random_state(random_state: int, group: int) -> int:
    """Return a random state for one group, where a library clusters one group at a time."""
    return 1000 * random_state + group
