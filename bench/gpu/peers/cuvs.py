# SPDX-License-Identifier: Apache-2.0
"""cuVS or cuML: one problem at a time, so a loop over the groups."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import torch

from bench.gpu.peers.interface import Fit
from bench.gpu.problem import Problem

_SMALLEST_TOLERANCE = 1e-30  # it must be greater than zero


class Cuvs:
    """``cuml.cluster.KMeans``, which runs cuVS's k-means, group after group."""

    key = "cuvs"
    title = "cuML (cuVS)"
    precision = "float32, TF32 products below 4096 rows"
    float32 = False

    def available(self, problem: Problem) -> str | None:
        try:
            importlib.import_module("cuml.cluster")
        except ImportError as error:
            return f"not installed ({error})"
        return None if problem.x.device.type == "cuda" else "needs a GPU"

    def versions(self) -> dict[str, str]:
        return {"cuml": str(importlib.import_module("cuml").__version__)}

    def prepare(self, problem: Problem) -> list[torch.Tensor]:
        return list(torch.split(problem.x, [int(size) for size in problem.sizes]))

    def fit_lloyd(self, inputs: list[torch.Tensor], problem: Problem, n_iter: int) -> Fit:
        return self._fit(inputs, problem, n_iter, None)

    def fit_end_to_end(
        self, inputs: list[torch.Tensor], problem: Problem, max_iter: int, seed: int
    ) -> Fit:
        return self._fit(inputs, problem, max_iter, seed)

    def _fit(
        self, inputs: list[torch.Tensor], problem: Problem, n_iter: int, seed: int | None
    ) -> Fit:
        cluster = importlib.import_module("cuml.cluster")
        centroids, labels = [], []
        for g, x in enumerate(inputs):
            how: dict[str, Any] = {"init": "k-means++", "random_state": seed}
            if seed is None:
                how = {"init": problem.seeds[g]}
            model = cluster.KMeans(
                n_clusters=problem.shape.k,
                max_iter=n_iter,
                tol=_SMALLEST_TOLERANCE,
                n_init=1,
                output_type="cupy",
                **how,
            ).fit(x)
            centroids.append(torch.as_tensor(model.cluster_centers_, device=x.device))
            labels.append(torch.as_tensor(model.labels_, device=x.device).long())
        return Fit(torch.stack(centroids), torch.cat(labels))
