# SPDX-License-Identifier: Apache-2.0
"""ddkern itself, behind the interface that the peers share."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import ddkern
from bench.baselines.interface import MAX_ITERATIONS, TOLERANCE, Draw, Fit, first_group
from ddkern import _core

if TYPE_CHECKING:
    from bench.shapes import Float32, Problem


class Ddkern:
    """One call of `ddkern.quantize` for all groups."""

    needs_seeds = False

    def __init__(self, threads: int) -> None:
        self._threads = threads
        # Stopping at the given number of iterations is what the fixed-length runs ask for.
        warnings.simplefilter("ignore")

    def versions(self) -> dict[str, str]:
        return {"ddkern": ddkern.__version__}

    def facts(self) -> dict[str, Any]:
        return {
            "isa": _core.isa_active(),
            "isa_available": list(_core.isa_available()),
            "isa_forced": os.environ.get("DDKERN_ISA", ""),
            "threads": self._threads,
        }

    def prepare(self, problem: Problem, seeds: Float32) -> None:
        small = first_group(problem)
        self.lloyd(small, seeds[: small.shape.k])

    def lloyd(self, problem: Problem, seeds: Float32) -> Fit:
        return self._quantize(problem, init=seeds, max_iter=problem.shape.iterations, tol=0.0)

    def fit(self, problem: Problem, draw: Draw) -> Fit:
        return self._quantize(
            problem,
            init="k-means++",
            n_init=problem.shape.n_init,
            max_iter=MAX_ITERATIONS,
            tol=TOLERANCE,
            random_state=draw.random_state,
        )

    def _quantize(self, problem: Problem, **options: Any) -> Fit:
        groups = problem.group_ids if problem.shape.groups > 1 else None
        q = ddkern.quantize(
            problem.x, problem.shape.k, groups=groups, n_threads=self._threads, **options
        )
        notes = {
            "form": ", ".join(sorted(set(q.stats.algorithm))),
            "rows_assigned": int(q.stats.rows_assigned.sum()),
            "rows_rechecked": int(q.stats.rows_rechecked.sum()),
            "rows_exact": int(q.stats.rows_exact.sum()),
        }
        return Fit(q.centroids, [int(n) for n in q.n_iter], notes)
