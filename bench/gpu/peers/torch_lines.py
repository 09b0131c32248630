# SPDX-License-Identifier: Apache-2.0
"""torch: the lines that people write themselves, batched over padded groups."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bench.gpu.clock import free_bytes, timed
from bench.gpu.peers.interface import Fit
from bench.gpu.problem import Problem

_UPDATES = ("one_hot", "index_add")
_MOST_TEMPORARIES = 8 * 2**30


@dataclass(frozen=True)
class _Batch:
    """Some of the groups, padded: rows (g, n, d), which of them count (g, n), rows at once."""

    x: torch.Tensor
    mask: torch.Tensor | None
    step: int

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor | None]]:
        for start in range(0, self.x.shape[1], self.step):
            rows = slice(start, start + self.step)
            yield rows, self.x[:, rows], None if self.mask is None else self.mask[:, rows]


class TorchLines:
    """``baddbmm`` for the scores, ``argmin``, and ``bmm`` with one-hot labels or ``index_add_``.

    Which update is the faster one is tried out, untimed, and noted. Groups are padded to the
    largest, which is part of what this costs; making the padded copy, or the copy in bfloat16, is
    not. As many groups go at once as leave room for the temporaries. In bfloat16 the operands are
    rounded; products are summed and stored in float32 where torch can do that (``out_dtype``), and
    the centroids are kept in float32. Labels are those of one more assignment, to the centroids
    that are returned.
    """

    def __init__(self, key: str) -> None:
        self.key = f"torch_{key}"
        self.title = f"torch {key}"
        self.float32 = key == "fp32"
        self.precision = {
            "fp32": "float32",
            "tf32": "TF32 products",
            "bf16": "bfloat16 operands",
        }[key]
        self._dtype = torch.bfloat16 if key == "bf16" else torch.float32
        self._matmul = "high" if key == "tf32" else "highest"
        self._update = _UPDATES[0]
        self._room = _MOST_TEMPORARIES

    def available(self, problem: Problem) -> str | None:
        if self.key == "torch_tf32" and problem.x.device.type != "cuda":
            return "TF32 needs a GPU"
        return None

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def prepare(self, problem: Problem) -> torch.Tensor:
        x = problem.padded(self._dtype)
        self._room = min(_MOST_TEMPORARIES, free_bytes(x.device) // 4)
        return x

    def choose(self, x: torch.Tensor, problem: Problem) -> None:
        """Time two iterations with either update, after one to warm up, and keep the faster."""
        seconds = {}
        for self._update in _UPDATES:
            self.fit_lloyd(x, problem, 1)
            call = functools.partial(self.fit_lloyd, x, problem, 2)
            seconds[self._update] = timed(call, x.device)[1]
        self._update = min(_UPDATES, key=lambda update: seconds[update])

    def fit_lloyd(self, inputs: torch.Tensor, problem: Problem, n_iter: int) -> Fit:
        centroids, labels = [], []
        with self._precision():
            for groups, batch in self._batches(inputs, problem):
                c = problem.seeds[groups]
                for _ in range(n_iter):
                    c = self._means(batch, c)[0]
                centroids.append(c)
                labels.append(self._assign(batch, c))
        return Fit(torch.cat(centroids), torch.cat(labels), self._notes(n_iter))

    def fit_end_to_end(
        self, inputs: torch.Tensor, problem: Problem, max_iter: int, seed: int
    ) -> Fit:
        """Stop a batch of groups when no label of it changes: that costs a look a step."""
        generator = torch.Generator(inputs.device).manual_seed(seed)
        centroids, labels, most = [], [], 0
        with self._precision():
            for groups, batch in self._batches(inputs, problem):
                c = self._greedy_seeds(batch, problem, groups, generator)
                previous: torch.Tensor | None = None
                steps = 0
                for _ in range(max_iter):
                    c, now = self._means(batch, c)
                    steps += 1
                    if previous is not None and torch.equal(now, previous):
                        break
                    previous = now
                most = max(most, steps)
                centroids.append(c)
                labels.append(self._assign(batch, c))
        return Fit(torch.cat(centroids), torch.cat(labels), self._notes(most))

    def _notes(self, iterations: int) -> dict[str, Any]:
        wide = _has_out_dtype(self._dtype)
        scores = "float32" if self._dtype == torch.float32 or wide else "bfloat16"
        return {"update": self._update, "scores": scores, "iterations": iterations}

    @contextmanager
    def _precision(self) -> Iterator[None]:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self._matmul)
        try:
            with torch.no_grad():
                yield
        finally:
            torch.set_float32_matmul_precision(before)

    def _batches(self, x: torch.Tensor, problem: Problem) -> Iterator[tuple[slice, _Batch]]:
        groups, n, d = x.shape
        k = problem.shape.k
        room = self._room
        # Scores, their argmin, the one-hot matrix as a mask and as numbers.
        per_row = k * (4 + 1 + x.element_size()) + 24
        if self._update == "index_add" and x.dtype != torch.float32:
            per_row += 4 * d
        step = max(1, min(n, room // per_row))
        at_once = max(1, min(groups, room // (per_row * step + 16 * k * d)))
        for first in range(0, groups, at_once):
            part = slice(first, first + at_once)
            mask = None if problem.equal else problem.mask[part]
            yield part, _Batch(x[part], mask, step)

    def _product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if self._dtype == torch.float32:
            return torch.bmm(a, b)
        if _has_out_dtype(self._dtype):
            return torch.bmm(a, b, out_dtype=torch.float32)
        return torch.bmm(a, b).float()

    def _labels(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        norms = c.square().sum(-1).unsqueeze(1)
        if self._dtype == torch.float32:
            return torch.baddbmm(norms, x, c.transpose(1, 2), alpha=-2.0).argmin(-1)
        rounded = (-2.0 * c).to(self._dtype)
        return self._product(x, rounded.transpose(1, 2)).add_(norms).argmin(-1)

    def _assign(self, batch: _Batch, c: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._labels(x, c) for _, x, _ in batch.blocks()], dim=1)

    def _means(self, batch: _Batch, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        g, k, d = c.shape
        sums: torch.Tensor | None = None
        counts = torch.zeros(g, k, device=c.device)
        all_labels = []
        for _, x, mask in batch.blocks():
            labels = self._labels(x, c)
            if mask is not None:
                labels = torch.where(mask, labels, k)
            all_labels.append(labels)
            if self._update == "one_hot":
                cells = torch.arange(k, device=c.device).reshape(1, k, 1)
                member = labels.unsqueeze(1) == cells
                counts += member.sum(-1)
                part = self._product(member.to(x.dtype), x)
                sums = part if sums is None else sums.add_(part)
            else:
                sums = torch.zeros(g * (k + 1), d, device=c.device) if sums is None else sums
                bins = (labels + (k + 1) * torch.arange(g, device=c.device).unsqueeze(1)).flatten()
                sums.index_add_(0, bins, x.reshape(-1, d).float())
                ones = torch.ones(1, device=c.device).expand(len(bins))
                number = torch.zeros(g * (k + 1), device=c.device).index_add_(0, bins, ones)
                counts += number.reshape(g, k + 1)[:, :k]
        assert sums is not None
        if self._update == "index_add":
            sums = sums.reshape(g, k + 1, d)[:, :k]
        filled = counts.unsqueeze(-1)
        means = torch.where(filled > 0, sums / filled.clamp(min=1), c)
        return means, torch.cat(all_labels, dim=1)

    def _greedy_seeds(
        self, batch: _Batch, problem: Problem, groups: slice, generator: torch.Generator
    ) -> torch.Tensor:
        """Greedy k-means++ for all groups of a batch at once, by inverse CDF."""
        x, device = batch.x, batch.x.device
        g, n = x.shape[:2]
        k, trials = problem.shape.k, problem.shape.trials
        sizes = torch.from_numpy(problem.sizes[groups]).to(device)
        each = torch.arange(g, device=device)
        norms = torch.cat([b.float().square().sum(-1) for _, b, _ in batch.blocks()], dim=1)

        def distances(rows: torch.Tensor) -> torch.Tensor:
            # (g, t) rows -> (g, n, t)
            chosen = x[each.unsqueeze(1), rows]
            base = norms.unsqueeze(2) + norms.gather(1, rows).unsqueeze(1)
            if self._dtype == torch.float32:
                found = torch.baddbmm(base, x, chosen.transpose(1, 2), alpha=-2.0)
            else:
                found = self._product(x, -2.0 * chosen.transpose(1, 2)).add_(base)
            found.clamp_(min=0)
            return found if batch.mask is None else found.mul_(batch.mask.unsqueeze(2))

        uniform = torch.rand(g, 1, generator=generator, device=device)
        first = (uniform * sizes.unsqueeze(1)).long().clamp_(max=n - 1)
        seeds = torch.empty(g, k, dtype=torch.long, device=device)
        seeds[:, :1] = first
        closest = distances(first).squeeze(2)
        for step in range(1, k):
            mass = closest.cumsum(1)
            draw = torch.rand(g, trials, generator=generator, device=device) * mass[:, -1:]
            rows = torch.searchsorted(mass, draw, right=True)
            rows = torch.minimum(rows, sizes.unsqueeze(1) - 1)
            candidates = torch.minimum(closest.unsqueeze(2), distances(rows))
            best = candidates.sum(1).argmin(1)
            closest = candidates[each, :, best]
            seeds[:, step] = rows[each, best]
        return x[each.unsqueeze(1), seeds].float()


@functools.cache
def _has_out_dtype(dtype: torch.dtype) -> bool:
    if dtype == torch.float32 or not torch.cuda.is_available():
        return False
    a = torch.ones(1, 16, 16, dtype=dtype, device="cuda")
    try:
        return torch.bmm(a, a, out_dtype=torch.float32).dtype == torch.float32
    except (TypeError, RuntimeError):
        return False
