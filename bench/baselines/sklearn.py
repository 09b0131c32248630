# SPDX-License-Identifier: Apache-2.0
"""scikit-learn: ``KMeans(algorithm="lloyd")``, one group after the other."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
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


class Sklearn:
    """The estimator with its defaults; ``tol=0`` where the number of iterations is fixed."""

    needs_seeds = False
    estimator: Any = KMeans

    def __init__(self, threads: int) -> None:
        threadpool_limits(threads)
        # Stopping at the given number of iterations is what the fixed-length runs ask for.
        warnings.simplefilter("ignore", ConvergenceWarning)

    def versions(self) -> dict[str, str]:
        return {"scikit-learn": sklearn.__version__, "numpy": np.__version__}

    def facts(self) -> dict[str, Any]:
        return {}

    def prepare(self, problem: Problem, seeds: Float32) -> None:
        small = first_group(problem)
        self.lloyd(small, seeds[: small.shape.k])

    def lloyd(self, problem: Problem, seeds: Float32) -> Fit:
        shape = problem.shape
        parts, n_iter = [], []
        for g in range(shape.groups):
            model = self.estimator(
                shape.k,
                init=problem.centroids(seeds, g),
                n_init=1,
                max_iter=shape.iterations,
                tol=0.0,
                algorithm="lloyd",
            ).fit(problem.rows(g))
            parts.append(model.cluster_centers_)
            n_iter.append(int(model.n_iter_))
        return Fit(np.concatenate(parts), n_iter)

    def fit(self, problem: Problem, draw: Draw) -> Fit:
        shape = problem.shape
        parts, n_iter = [], []
        for g in range(shape.groups):
            model = self.estimator(
                shape.k,
                init="k-means++",
                n_init=shape.n_init,
                max_iter=MAX_ITERATIONS,
                tol=TOLERANCE,
                algorithm="lloyd",
                random_state=group_random_state(draw.random_state, g),
            ).fit(problem.rows(g))
            parts.append(model.cluster_centers_)
            n_iter.append(int(model.n_iter_))
        return Fit(np.concatenate(parts), n_iter)

    def draw_seeds(self, problem: Problem, random_state: int) -> list[Float32]:
        """Greedy k-means++ seeds, one ``(groups * k, d)`` array a restart."""
        shape = problem.shape
        states = [
            np.random.RandomState(group_random_state(random_state, g)) for g in range(shape.groups)
        ]
        return [
            np.concatenate(
                [
                    kmeans_plusplus(problem.rows(g), shape.k, random_state=states[g])[0]
                    for g in range(shape.groups)
                ]
            )
            for _ in range(shape.n_init)
        ]
