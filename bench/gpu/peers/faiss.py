# SPDX-License-Identifier: Apache-2.0
"""faiss on a GPU: one problem at a time, from host memory."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from bench.gpu.peers.interface import Fit
from bench.gpu.problem import Problem


class Faiss:
    """``faiss.Kmeans(gpu=True)``, group after group; the rows are in host memory before.

    It does not return labels. Its seeding end to end is plain k-means++ where this version has it,
    and random rows otherwise.
    """

    key = "faiss"
    title = "faiss"
    precision = "float32"
    float32 = True

    def available(self, problem: Problem) -> str | None:
        try:
            faiss = importlib.import_module("faiss")
        except ImportError as error:
            return f"not installed ({error})"
        if not hasattr(faiss, "StandardGpuResources"):
            return "not installed for GPUs"
        return None if problem.x.device.type == "cuda" else "needs a GPU"

    def versions(self) -> dict[str, str]:
        return {"faiss": str(importlib.import_module("faiss").__version__)}

    def prepare(self, problem: Problem) -> list[Any]:
        parts = torch.split(problem.x, [int(size) for size in problem.sizes])
        return [part.cpu().numpy() for part in parts]

    def fit_lloyd(self, inputs: list[Any], problem: Problem, n_iter: int) -> Fit:
        return self._fit(inputs, problem, n_iter, seeds=problem.seeds.cpu().numpy())

    def fit_end_to_end(self, inputs: list[Any], problem: Problem, max_iter: int, seed: int) -> Fit:
        return self._fit(inputs, problem, max_iter, seed=seed)

    def _fit(
        self, inputs: list[Any], problem: Problem, n_iter: int, *, seeds: Any = None, seed: int = 1
    ) -> Fit:
        faiss = importlib.import_module("faiss")
        shape = problem.shape
        own: dict[str, Any] = {"seed": 1 + seed}
        method = getattr(faiss, "ClusteringInitMethod_KMEANS_PLUS_PLUS", None)
        if seeds is None and method is not None:
            own["init_method"] = method
        centroids = []
        for g, x in enumerate(inputs):
            model = faiss.Kmeans(
                shape.d,
                shape.k,
                niter=n_iter,
                gpu=1,
                min_points_per_centroid=1,
                max_points_per_centroid=2**31 - 1,
                **own,
            )
            model.train(x, init_centroids=None if seeds is None else seeds[g])
            centroids.append(np.asarray(model.centroids))
        device = problem.x.device
        return Fit(torch.from_numpy(np.stack(centroids)).to(device), None)
