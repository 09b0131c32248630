# SPDX-License-Identifier: Apache-2.0
"""faiss: ``faiss.Kmeans`` with a flat index, one group after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from bench.baselines.interface import (
    MAX_ITERATIONS,
    TOLERANCE,
    Draw,
    Fit,
    first_group,
    group_random_state,
)

if TYPE_CHECKING:
    from bench.shapes import Float32, Problem


class Faiss:
    """All points (faiss would sample), no check for NaN, given seeds.

    faiss has no greedy k-means++: end to end it gets scikit-learn's seeds. Its tolerance is the
    relative change of the objective, the only one it has.
    """

    needs_seeds = True

    def __init__(self, threads: int) -> None:
        threadpool_limits(threads)
        faiss.omp_set_num_threads(threads)

    def versions(self) -> dict[str, str]:
        return {"faiss": faiss.__version__, "numpy": np.__version__}

    def facts(self) -> dict[str, Any]:
        return {"compile_options": faiss.get_compile_options().strip()}

    def prepare(self, problem: Problem, seeds: Float32) -> None:
        small = first_group(problem)
        self.lloyd(small, seeds[: small.shape.k])

    def lloyd(self, problem: Problem, seeds: Float32) -> Fit:
        shape = problem.shape
        parts, n_iter = [], []
        for g in range(shape.groups):
            # A threshold of 0 stops only where two iterations have the same objective.
            model = self._model(problem, niter=shape.iterations, early_stop_threshold=0.0)
            model.train(problem.rows(g), init_centroids=problem.centroids(seeds, g))
            parts.append(model.centroids)
            n_iter.append(len(model.obj))
        return Fit(np.concatenate(parts), n_iter)

    def fit(self, problem: Problem, draw: Draw) -> Fit:
        parts, n_iter = [], []
        for g in range(problem.shape.groups):
            best: Any = None
            for restart in draw.seeds:
                model = self._model(problem, niter=MAX_ITERATIONS, early_stop_threshold=TOLERANCE)
                model.train(problem.rows(g), init_centroids=problem.centroids(restart, g))
                if best is None or model.obj[-1] < best.obj[-1]:
                    best = model
            parts.append(best.centroids)
            n_iter.append(len(best.obj))
        return Fit(np.concatenate(parts), n_iter)

    @staticmethod
    def _model(problem: Problem, **options: Any) -> Any:
        return faiss.Kmeans(
            problem.shape.d,
            problem.shape.k,
            min_points_per_centroid=1,
            max_points_per_centroid=problem.shape.n,
            check_input_data_for_NaNs=False,
            **options,
        )


class FaissOwnSeeds(Faiss):
    """faiss with its own k-means++ (one candidate a step) and its own restarts."""

    needs_seeds = False

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        if not hasattr(faiss, "ClusteringInitMethod_KMEANS_PLUS_PLUS"):
            raise ImportError(f"faiss {faiss.__version__} has no k-means++")

    def fit(self, problem: Problem, draw: Draw) -> Fit:
        parts, n_iter = [], []
        for g in range(problem.shape.groups):
            model = self._model(
                problem,
                niter=MAX_ITERATIONS,
                early_stop_threshold=TOLERANCE,
                nredo=problem.shape.n_init,
                init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
                seed=group_random_state(draw.random_state, g),
            )
            model.train(problem.rows(g))
            parts.append(model.centroids)
            n_iter.append(len(model.obj))
        return Fit(np.concatenate(parts), n_iter)
