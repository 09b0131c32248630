# SPDX-License-Identifier: Apache-2.0
"""Whether a result is what it should be, in float64 on the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench.gpu.problem import Problem

_BLOCK_BYTES = 2**30
_SAMPLED_GROUPS, _SAMPLED_ROWS = 8, 16384
# A distance counts as farther only beyond what float64 itself may have rounded.
_ROUNDING = 1e-13


def distortion(problem: Problem, centroids: torch.Tensor) -> torch.Tensor:
    """Mean squared distance to the nearest of the centroids, (groups,) float64."""
    totals = torch.zeros(len(problem.sizes), dtype=torch.float64, device=problem.x.device)
    for g in range(len(problem.sizes)):
        for _, squared, _ in _blocks(problem, centroids, g, int(problem.sizes[g])):
            totals[g] += squared.amin(1).clamp_(min=0).sum()
    return totals / torch.from_numpy(problem.sizes).to(totals.device)


def not_nearest(problem: Problem, centroids: torch.Tensor, labels: torch.Tensor) -> tuple[int, int]:
    """Count rows of sampled groups whose label is not the nearest centroid, and rows looked at."""
    groups = len(problem.sizes)
    sampled = sorted(
        {(2 * i + 1) * groups // (2 * _SAMPLED_GROUPS) for i in range(_SAMPLED_GROUPS)}
    )
    flat = problem.flat(labels)
    wrong = looked_at = 0
    for g in sampled:
        rows = min(int(problem.sizes[g]), _SAMPLED_ROWS)
        start = int(problem.starts[g])
        for block, squared, scale in _blocks(problem, centroids, g, rows):
            given = flat[start + block.start : start + block.stop]
            outside = (given < 0) | (given >= squared.shape[1])
            chosen = squared.gather(1, given.clamp(0, squared.shape[1] - 1).unsqueeze(1))
            farther = chosen.squeeze(1) > squared.amin(1) + _ROUNDING * scale
            wrong += int((farther | outside).sum())
            looked_at += len(given)
    return wrong, looked_at


def _blocks(
    problem: Problem, centroids: torch.Tensor, group: int, rows: int
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    # Rows, squared distances, and the magnitude that the rounding of these is relative to.
    origin = problem.x[int(problem.starts[group])].double()
    c = centroids[group].double() - origin
    norms = c.square().sum(1)
    step = max(1, _BLOCK_BYTES // (8 * (c.shape[0] + 2 * c.shape[1])))
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        first = int(problem.starts[group])
        x = problem.x[first + block.start : first + block.stop].double() - origin
        squares = x.square().sum(1)
        squared = torch.addmm(norms, x, c.T, alpha=-2.0).add_(squares.unsqueeze(1))
        yield block, squared, squares + norms.max()
