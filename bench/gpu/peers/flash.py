# SPDX-License-Identifier: Apache-2.0
"""flash-kmeans: batched k-means by Triton kernels, for groups of equal size."""

from __future__ import annotations

import contextlib
import importlib.metadata
from typing import Any

import torch

from bench.gpu.peers.interface import Fit
from bench.gpu.problem import Problem


class Flash:
    """``batch_kmeans_Euclid``; float32 data are multiplied in TF32 (Triton's default).

    Centroids have the type of the data, and the labels that it returns are those of its last
    iteration, to the centroids before the last update.
    """

    float32 = False

    def __init__(self, key: str) -> None:
        self.key = f"flash_{key}"
        self.title = f"flash-kmeans {key}"
        self.precision = {"bf16": "bfloat16", "tf32": "float32 data, TF32 products"}[key]
        self._dtype = torch.bfloat16 if key == "bf16" else torch.float32

    def available(self, problem: Problem) -> str | None:
        try:
            import flash_kmeans  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            return f"not installed ({error})"
        if problem.x.device.type != "cuda" or not hasattr(flash_kmeans, "batch_kmeans_Euclid"):
            return "needs a GPU"
        return None if problem.equal else "takes groups of equal size only"

    def versions(self) -> dict[str, str]:
        found = {"flash-kmeans": importlib.metadata.version("flash-kmeans")}
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found["triton"] = importlib.metadata.version("triton")
        return found

    def prepare(self, problem: Problem) -> torch.Tensor:
        return problem.padded(self._dtype)

    def fit_lloyd(self, inputs: torch.Tensor, problem: Problem, n_iter: int) -> Fit:
        return self._fit(inputs, problem, n_iter, problem.seeds.to(self._dtype))

    def fit_end_to_end(
        self, inputs: torch.Tensor, problem: Problem, max_iter: int, seed: int
    ) -> Fit:
        """Seeds are random rows drawn with replacement: it has no other way of its own."""
        torch.manual_seed(seed)
        return self._fit(inputs, problem, max_iter, None)

    def _fit(
        self, x: torch.Tensor, problem: Problem, n_iter: int, seeds: torch.Tensor | None
    ) -> Fit:
        from flash_kmeans import batch_kmeans_Euclid

        labels, centroids, iterations = batch_kmeans_Euclid(
            x, problem.shape.k, max_iters=n_iter, tol=0.0, init_centroids=seeds
        )
        notes: dict[str, Any] = {"iterations": int(iterations)}
        if seeds is None:
            notes["seeding"] = "random rows, with replacement"
        return Fit(centroids, labels.long(), notes)
