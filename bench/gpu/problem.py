# SPDX-License-Identifier: Apache-2.0
"""What is measured on a GPU: shapes, and data generated on the device."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

# A basis of rank 32 and 16 components a group: see `make_problem`.
_RANK, _COMPONENTS, _NOISE = 32, 16, 0.7
# ImageNet-1K: 895 of its 1000 classes have 1300 training images, the others 732 to 1299.
_FULL_CLASSES, _SMALLEST_CLASS, _LARGEST_CLASS = 0.895, 732, 1300
# Of the memory that is free, the share that the rows may take: a padded copy, a product in lower
# precision and temporaries come on top.
_SHARE_OF_MEMORY = 0.36


@dataclass(frozen=True)
class GpuShape:
    """One line: ``n`` is the largest group; ``ragged`` groups are drawn like ImageNet's classes."""

    name: str
    groups: int
    n: int
    d: int
    k: int
    iterations: int = 20
    ragged: bool = False
    smallest: int = _SMALLEST_CLASS

    @property
    def label(self) -> str:
        """Return the line's name in tables."""
        rows = f"{self.smallest}-{self.n}" if self.ragged else str(self.n)
        return f"{self.groups} x {rows} x {self.d}, k={self.k}"

    @property
    def trials(self) -> int:
        """Return the candidates a step of greedy k-means++ draws."""
        return 2 + int(math.log(self.k))

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the label."""
        return {**asdict(self), "label": self.label}

    def fitted(self, free_bytes: int) -> GpuShape:
        """Return the shape with as many of its groups as the memory has room for."""
        room = int(_SHARE_OF_MEMORY * free_bytes) // (4 * self.n * self.d)
        if self.groups == 1 and room < 1:
            raise MemoryError(f"{self.label} does not fit into {free_bytes / 2**30:.0f} GiB")
        return replace(self, groups=max(1, min(self.groups, room)))


def _latents(k: int) -> GpuShape:
    return GpuShape(f"latents-k{k}", 1000, _LARGEST_CLASS, 4096, k, ragged=True)


_D4M = GpuShape("latents64-k50", 250, _LARGEST_CLASS, 16384, 50, ragged=True)
_CIFAR = tuple(GpuShape(f"cifar10-k{k}", 10, 5000, 3072, k) for k in (10, 50))
_CODEBOOK = GpuShape("codebook-k4096", 1, 1_000_000, 128, 4096)
HUGE = GpuShape("codebook-k16384", 1, 10_000_000, 256, 16384, iterations=5)

_SCALING_BASE = GpuShape("scaling", 64, 1300, 4096, 50, iterations=10)
SCALING_SIZES: dict[str, tuple[int, ...]] = {
    "groups": (4, 16, 64, 256),
    "n": (325, 1300, 5200, 20800),
    "d": (256, 1024, 4096, 16384),
    "k": (10, 50, 200, 800),
}
_SMOKE_BASE = GpuShape("scaling", 3, 60, 24, 4, iterations=3)
_SMOKE_SIZES: dict[str, tuple[int, ...]] = {
    "groups": (2, 3, 6),
    "n": (30, 60),
    "d": (12, 24),
    "k": (2, 4, 8),
}


def _scaling(base: GpuShape, sizes: dict[str, tuple[int, ...]]) -> tuple[GpuShape, ...]:
    shapes = {
        shape: replace(shape, name=f"{axis}{size}")
        for axis, values in sizes.items()
        for size in values
        for shape in [replace(base, **{axis: size})]  # type: ignore[arg-type]
    }
    return tuple(shapes.values())


# In the order of importance: a run that is out of time has the first lines.
SUITES: dict[str, tuple[GpuShape, ...]] = {
    "lloyd": (
        _latents(50),
        _latents(10),
        _latents(200),
        *(GpuShape(f"equal-k{k}", 1000, 1280, 4096, k) for k in (50, 10, 200)),
        _CIFAR[0],
        _CIFAR[1],
        _CODEBOOK,
        _D4M,
    ),
    "end_to_end": (_latents(50), _latents(10), *_CIFAR, _D4M, _latents(200), _CODEBOOK),
    "scaling": _scaling(_SCALING_BASE, SCALING_SIZES),
}
_TINY = (
    GpuShape("latents-k5", 6, 70, 32, 5, iterations=3, ragged=True, smallest=30),
    GpuShape("equal-k3", 4, 64, 16, 3, iterations=3),
    GpuShape("codebook-k16", 1, 700, 8, 16, iterations=4),
)
SMOKE: dict[str, tuple[GpuShape, ...]] = {
    "lloyd": _TINY,
    "end_to_end": _TINY,
    "scaling": _scaling(_SMOKE_BASE, _SMOKE_SIZES),
}


class Problem:
    """Rows of all groups, one group after the other, and the forms that contestants take.

    Attributes
    ----------
    shape : GpuShape
    x : (N, d) float32
    sizes : (groups,) int64 on the host
    ids : (N,) int64
        The group of every row.
    seeds : (groups, k, d) float32
        Distinct rows of each group, drawn uniformly.
    """

    def __init__(self, shape: GpuShape, x: torch.Tensor, sizes: np.ndarray[Any, Any]) -> None:
        self.shape = shape
        self.x = x
        self.sizes = sizes
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        counts = torch.from_numpy(sizes).to(x.device)
        self.ids = torch.repeat_interleave(torch.arange(len(sizes), device=x.device), counts)
        self.seeds = torch.empty(0)

    @property
    def equal(self) -> bool:
        """Whether all groups have the same number of rows."""
        return bool((self.sizes == self.sizes[0]).all())

    @cached_property
    def mask(self) -> torch.Tensor:
        """Which entries of the padded form are rows: (groups, n)."""
        sizes = torch.from_numpy(self.sizes).to(self.x.device)
        positions = torch.arange(int(self.sizes.max()), device=self.x.device)
        return positions < sizes.unsqueeze(1)

    def padded(self, dtype: torch.dtype) -> torch.Tensor:
        """Return a copy (groups, n, d) with zeros after the rows of a group; made anew each time.

        Equal groups in float32 need no copy.
        """
        groups, n, d = len(self.sizes), int(self.sizes.max()), self.shape.d
        if self.equal:
            return self.x.reshape(groups, n, d).to(dtype)
        out = torch.zeros(groups, n, d, dtype=dtype, device=self.x.device)
        for g in range(groups):
            out[g, : self.sizes[g]] = self.x[self.starts[g] : self.starts[g + 1]]
        return out

    def flat(self, labels: torch.Tensor) -> torch.Tensor:
        """Return labels of all rows (N,) from labels of the padded form."""
        return labels[self.mask] if labels.ndim == 2 else labels


def make_problem(shape: GpuShape, device: torch.device, seed: int = 0) -> Problem:
    """Generate rows and initial centroids on the device.

    A group is a mixture of 16 overlapping Gaussian components in a subspace of rank 32 of its own,
    with a spectrum that falls as 1/sqrt(rank), around a mean of its own, plus isotropic noise:
    clusters exist, and Lloyd's iteration is not done after a few steps. The same seed gives the
    same rows on the same kind of device.
    """
    rng = np.random.default_rng([seed, shape.groups, shape.n, shape.d])
    sizes = np.full(shape.groups, shape.n, dtype=np.int64)
    if shape.ragged:
        small = rng.random(shape.groups) >= _FULL_CLASSES
        small[-1] = True  # also a handful of groups is ragged
        sizes[small] = rng.integers(shape.smallest, shape.n, int(small.sum()))
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device=device)

    x = torch.empty(int(sizes.sum()), shape.d, device=device)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    spectrum = torch.arange(1, _RANK + 1, device=device).rsqrt()
    block = max(1, 2**28 // shape.d)
    for g in range(shape.groups):
        basis, centres, mean = normal(_RANK, shape.d), normal(_COMPONENTS, _RANK), normal(shape.d)
        for start in range(int(starts[g]), int(starts[g + 1]), block):
            rows = x[start : min(start + block, int(starts[g + 1]))]
            component = torch.randint(_COMPONENTS, (len(rows),), generator=generator, device=device)
            z = (centres[component] + normal(len(rows), _RANK)) * spectrum
            rows.normal_(mean=0.0, std=_NOISE, generator=generator)
            rows.addmm_(z, basis).add_(mean)
    problem = Problem(shape, x, sizes)
    problem.seeds = torch.stack(
        [
            x[int(starts[g]) + _distinct(int(sizes[g]), shape.k, rng, device)]
            for g in range(shape.groups)
        ]
    )
    return problem


def _distinct(n: int, k: int, rng: np.random.Generator, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(rng.choice(n, k, replace=False)).to(device)
