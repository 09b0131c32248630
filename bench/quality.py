# SPDX-License-Identifier: Apache-2.0
"""One yardstick for everybody: the distortion of returned centroids, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bench.shapes import Float32, Problem

_BLOCK_VALUES = 1 << 24  # float64 values of a block of rows: 128 MiB


def distortion(rows: Float32, centroids: Float32) -> float:
    """Return the mean squared distance of ``rows`` (n, d) to the nearest of ``centroids`` (k, d).

    Nothing an implementation says about its own result (inertia, labels) enters.
    """
    c = centroids.astype(np.float64)
    c_norms = np.einsum("ij,ij->i", c, c)
    block = max(1, _BLOCK_VALUES // rows.shape[1])
    total = 0.0
    for start in range(0, len(rows), block):
        x = rows[start : start + block].astype(np.float64)
        scores = c_norms - 2.0 * (x @ c.T)
        total += float(np.einsum("ij,ij->", x, x) + scores.min(axis=1).sum())
    return total / len(rows)


def group_distortions(problem: Problem, stacked: Float32) -> list[float]:
    """Return the `distortion` of every group, for centroids ``(groups * k, d)``."""
    return [
        distortion(problem.rows(g), problem.centroids(stacked, g))
        for g in range(problem.shape.groups)
    ]
