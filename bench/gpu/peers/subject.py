# SPDX-License-Identifier: Apache-2.0
"""ddkern itself."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

import ddkern
from bench.gpu.peers.interface import Fit
from bench.gpu.problem import Problem


class Subject:
    """``ddkern.quantize`` on the ragged float32 rows."""

    float32 = True
    precision = "exact assignments, float32 data"

    def __init__(self, algorithm: str = "auto") -> None:
        self._algorithm = algorithm
        self.key = "ddkern" if algorithm == "auto" else f"ddkern_{algorithm}"
        self.title = "ddkern" if algorithm == "auto" else f"ddkern, {algorithm}"

    def available(self, problem: Problem) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        return {"ddkern": ddkern.__version__}

    def prepare(self, problem: Problem) -> torch.Tensor:
        return problem.x

    def fit_lloyd(self, inputs: torch.Tensor, problem: Problem, n_iter: int) -> Fit:
        shape = problem.shape
        init = problem.seeds.reshape(-1, shape.d)
        return self._fit(inputs, problem, init=init, max_iter=n_iter, random_state=0)

    def fit_end_to_end(
        self, inputs: torch.Tensor, problem: Problem, max_iter: int, seed: int
    ) -> Fit:
        return self._fit(inputs, problem, init="k-means++", max_iter=max_iter, random_state=seed)

    def _fit(self, x: torch.Tensor, problem: Problem, **arguments: Any) -> Fit:
        shape = problem.shape
        ids = problem.ids.to(x.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ddkern.ConvergenceWarning)
            result = ddkern.quantize(
                x,
                shape.k,
                groups=ids,
                tol=0,
                algorithm=self._algorithm,  # type: ignore[arg-type]
                **arguments,
            )
        labels = result.assignment - shape.k * ids
        return Fit(result.centroids.reshape(-1, shape.k, shape.d), labels, _notes(result))


class HostSubject(Subject):
    """The same with rows in CPU memory, which are brought to the device inside the time."""

    def __init__(self) -> None:
        super().__init__()
        self.key = "ddkern_host"
        self.title = "ddkern, rows in CPU memory"

    def prepare(self, problem: Problem) -> torch.Tensor:
        return problem.x.cpu()

    def _fit(self, x: torch.Tensor, problem: Problem, **arguments: Any) -> Fit:
        if isinstance(arguments["init"], torch.Tensor):
            arguments["init"] = arguments["init"].cpu()
        fit = super()._fit(x, problem, device=problem.x.device, **arguments)
        assert fit.labels is not None
        here = problem.x.device
        return Fit(fit.centroids.to(here), fit.labels.to(here), fit.notes)


def _notes(result: Any) -> dict[str, Any]:
    stats = result.stats
    iterations = torch.as_tensor(result.n_iter).cpu().numpy()
    notes: dict[str, Any] = {
        "n_iter": [int(n) for n in np.quantile(iterations, [0, 0.01, 0.5, 1], method="lower")],
        "mean_iterations": float(iterations.mean()),
        "distortion": float(torch.as_tensor(result.distortion).double().mean()),
    }
    for name in ("seconds_prepare", "seconds_seed", "seconds_lloyd", "seconds_total"):
        if hasattr(stats, name):
            notes[name] = float(np.sum(getattr(stats, name)))
    for name in ("rows_assigned", "rows_rechecked", "rows_exact", "cells_reseeded"):
        if hasattr(stats, name):
            notes[name] = int(np.sum(getattr(stats, name)))
    for name in ("algorithm", "products"):
        if hasattr(stats, name):
            notes[name] = sorted(set(getattr(stats, name)))
    return notes
