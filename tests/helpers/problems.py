# SPDX-License-Identifier: Apache-2.0
"""Assignment problems, easy and adversarial, in every kind of input type.

`problems(dtype)` yields the same list each time. A family says what makes its problems hard; the
sizes run over the edges of the tiles that kernels work in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reference.canonical import stored

DTYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int32")

ROWS = (1, 31, 32, 33, 63, 64, 65)
FEATURES = (1, 2, 3, 15, 16, 17, 31, 33, 127, 128, 129)
WIDE_FEATURES = (4095, 16384)
CENTROIDS = (1, 2, 3, 11, 12, 13, 14, 25, 26, 27)

Pair = tuple[NDArray[Any], NDArray[Any]]
Family = Callable[[np.random.Generator, int, int, int, str], Pair]


@dataclass(frozen=True)
class Problem:
    """Rows and centroids.

    Attributes
    ----------
    name : str
    dtype : str
        Type that the rows are passed in, one of `DTYPES`.
    x : (n, D) array
        The rows; for bfloat16, float32 values that bfloat16 holds.
    centroids : (k, D) array
        In the type that centroids are stored in.
    """

    name: str
    dtype: str
    x: NDArray[Any]
    centroids: NDArray[Any]

    @property
    def rows(self) -> Any:
        """The rows as the library's caller passes them."""
        return as_bfloat16(self.x) if self.dtype == "bfloat16" else self.x


def as_bfloat16(values: NDArray[np.float32]) -> Any:
    """Return a torch tensor of bfloat16 with `values`, or skip without torch."""
    torch = pytest.importorskip("torch", reason="bfloat16 arrays come from torch")
    return torch.from_numpy(values.copy()).to(torch.bfloat16)


def cast(values: NDArray[np.float64], dtype: str) -> NDArray[Any]:
    """Round `values` to `dtype`; integers are scaled into their range first."""
    if dtype == "bfloat16":
        bits = values.astype(np.float32).view(np.uint32)
        return ((bits + 0x8000) & np.uint32(0xFFFF0000)).view(np.float32)
    if dtype == "uint8":
        return np.clip(np.rint(128 + 40 * values), 0, 255).astype(np.uint8)
    if dtype == "int32":
        return np.clip(np.rint(1000 * values), -(2**30), 2**30).astype(np.int32)
    return values.astype(dtype)


def one_step(values: NDArray[Any], steps: NDArray[np.int64], dtype: str) -> NDArray[Any]:
    """Move each value to a neighbour in `dtype`, or leave it where `steps` is 0."""
    if dtype == "bfloat16":
        steps = np.where(values == 0, 0, steps << 16)
        return (values.view(np.int32) + steps.astype(np.int32)).view(np.float32)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        return np.clip(values.astype(np.int64) + steps, limits.min, limits.max).astype(values.dtype)
    towards = (steps * np.finfo(values.dtype).max).astype(values.dtype)
    moved: NDArray[Any] = np.where(steps == 0, values, np.nextafter(values, towards))
    return moved


def gaussian(rng: np.random.Generator, n: int, d: int, k: int, dtype: str) -> Pair:
    return cast(rng.normal(size=(n, d)), dtype), cast(rng.normal(size=(k, d)), dtype)


def clustered(rng: np.random.Generator, n: int, d: int, k: int, dtype: str) -> Pair:
    """Tight clusters, and centroids close to their means."""
    centres = rng.normal(size=(k, d))
    x = centres[rng.integers(0, k, n)] + 0.05 * rng.normal(size=(n, d))
    return cast(x, dtype), cast(centres + 0.01 * rng.normal(size=(k, d)), dtype)


def centroids_are_rows(rng: np.random.Generator, n: int, d: int, k: int, dtype: str) -> Pair:
    """Rows with copies; the centroids are rows too, so zero distances and duplicates tie."""
    distinct = cast(rng.normal(size=(max(1, n // 3), d)), dtype)
    x = distinct[rng.integers(0, len(distinct), n)]
    return x, x[rng.integers(0, n, k)]


def near_ties(rng: np.random.Generator, n: int, d: int, k: int, dtype: str) -> Pair:
    """Rows within one step of the middle between two centroids."""
    centroids = cast(rng.normal(size=(k, d)), dtype)
    a, b = centroids[rng.integers(0, k, (2, n))].astype(np.float64)
    middle = (a + b) / 2
    if dtype in ("uint8", "int32"):
        x = np.rint(middle).astype(centroids.dtype)
    else:
        x = cast(middle, dtype)
    return one_step(x, rng.integers(-1, 2, x.shape), dtype), centroids


def twin_centroids(rng: np.random.Generator, n: int, d: int, k: int, dtype: str) -> Pair:
    """Centroids in pairs that differ by one step in one feature."""
    centroids = cast(rng.normal(size=(k, d)), dtype)
    twins = centroids[: k // 2]
    steps = np.zeros(twins.shape, np.int64)
    steps[np.arange(len(twins)), rng.integers(0, d, len(twins))] = 1
    centroids[k - len(twins) :] = one_step(twins, steps, dtype)
    return cast(rng.normal(size=(n, d)), dtype), centroids


def hidden_ties(rng: np.random.Generator, n: int, d: int, k: int, dtype: str) -> Pair:
    """Mirrored centroids that tie but for the last feature, too small for float64 sums to see."""
    rows, centroids = np.zeros((n, d)), rng.normal(size=(k, d))
    centroids[k - k // 2 :] = -centroids[: k // 2]
    tiny = {"float16": 2.0**-20, "uint8": 1 / 40, "int32": 1e-3}.get(dtype, 2.0**-33)
    rows[:, -1] = tiny * rng.choice([-1, 0, 1], n)
    centroids[:, -1] = tiny * rng.choice([-1, 1], k)
    if dtype == "uint8":  # mirrored about 128 without rounding or clipping
        centroids = np.clip(np.rint(40 * centroids), -127, 127) / 40
    return cast(rows, dtype), cast(centroids, dtype)


def integer_grid(rng: np.random.Generator, n: int, d: int, k: int, dtype: str) -> Pair:
    """Small integers, where exact ties are common."""
    kind = "float32" if dtype == "bfloat16" else dtype
    return rng.integers(0, 3, (n, d)).astype(kind), rng.integers(0, 3, (k, d)).astype(kind)


def far_offset(rng: np.random.Generator, n: int, d: int, k: int, dtype: str) -> Pair:
    """Values up to a million standard deviations from 0."""
    if dtype in ("uint8", "int32"):
        x, c = gaussian(rng, n, d, k, dtype)
        return (x // 16 + 224, c // 16 + 224) if dtype == "uint8" else (x + 10**9, c + 10**9)
    highest = {"float16": 3.0, "bfloat16": 2.0}.get(dtype, 6.0)
    offset = 10.0 ** rng.uniform(highest / 2, highest)
    return cast(offset + rng.normal(size=(n, d)), dtype), cast(
        offset + rng.normal(size=(k, d)), dtype
    )


def any_scale(rng: np.random.Generator, n: int, d: int, k: int, dtype: str) -> Pair:
    """One scale for all values, from denormals to squares beyond the range of the type."""
    ranges = {"float64": (-140, 140), "float16": (-7, 4), "uint8": (0, 1), "int32": (0, 5)}
    low, high = ranges.get(dtype, (-45, 37))
    scale = 10.0 ** rng.uniform(low, high)
    return cast(scale * rng.normal(size=(n, d)), dtype), cast(
        scale * rng.normal(size=(k, d)), dtype
    )


def wide_range(rng: np.random.Generator, n: int, d: int, k: int, dtype: str) -> Pair:
    """One scale for each feature, many powers of ten apart."""
    low, high = {"float16": (-6, 3), "uint8": (-2, 0), "int32": (-3, 5)}.get(dtype, (-20, 10))
    scale = 10.0 ** rng.uniform(low, high, d)
    return cast(scale * rng.normal(size=(n, d)), dtype), cast(
        scale * rng.normal(size=(k, d)), dtype
    )


FAMILIES: tuple[Family, ...] = (
    gaussian,
    clustered,
    centroids_are_rows,
    near_ties,
    twin_centroids,
    hidden_ties,
    integer_grid,
    far_offset,
    any_scale,
    wide_range,
)


@cache
def problems(dtype: str) -> tuple[Problem, ...]:
    """Return more than 500 problems whose rows are passed as `dtype`."""
    shapes = [
        (n, d, CENTROIDS[i % len(CENTROIDS)])
        for i, (n, d) in enumerate(itertools.product(ROWS, FEATURES))
    ]
    cases = [
        (family, n, d, n if (i + j) % 11 == 10 else k)
        for j, family in enumerate(FAMILIES)
        for i, (n, d, k) in enumerate(shapes)
    ]
    cases += [(f, 33, d, 13) for f in (gaussian, near_ties, far_offset) for d in WIDE_FEATURES]
    return tuple(_build(dtype, number, *case) for number, case in enumerate(cases))


def _build(dtype: str, number: int, family: Family, n: int, d: int, k: int) -> Problem:
    x, centroids = family(np.random.default_rng([DTYPES.index(dtype), number]), n, d, k, dtype)
    x.flags.writeable = False
    name = f"{family.__name__}-{dtype}-n{n}-d{d}-k{k}"
    return Problem(name, dtype, x, stored(centroids))
