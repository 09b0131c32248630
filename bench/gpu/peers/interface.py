# SPDX-License-Identifier: Apache-2.0
"""What a contestant on a GPU must be able to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from bench.gpu.problem import Problem


@dataclass
class Fit:
    """What came out of one timed call.

    Attributes
    ----------
    centroids : (groups, k, d)
    labels : (N,) or (groups, n) of the padded form, or None
        Within the group.
    notes : dict
        JSON-ready facts about how it was done.
    """

    centroids: torch.Tensor
    labels: torch.Tensor | None
    notes: dict[str, Any] = field(default_factory=dict)


class Contestant(Protocol):
    """One library in one precision. Only ``fit_lloyd`` and ``fit_end_to_end`` are timed."""

    key: str
    title: str
    precision: str  # of the products, in words
    float32: bool  # held to agreement at the level of float32

    def available(self, problem: Problem) -> str | None:
        """Return why it cannot be measured here, or None."""
        ...

    def versions(self) -> dict[str, str]:
        """Return the versions of everything that computes."""
        ...

    def prepare(self, problem: Problem) -> Any:
        """Return the input in the form that this library takes (for ``fit_*``)."""
        ...

    def fit_lloyd(self, inputs: Any, problem: Problem, n_iter: int) -> Fit:
        """Run ``n_iter`` iterations from ``problem.seeds``."""
        ...

    def fit_end_to_end(self, inputs: Any, problem: Problem, max_iter: int, seed: int) -> Fit:
        """Run the library's own seeding, then at most ``max_iter`` iterations."""
        ...
