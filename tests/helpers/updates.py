# SPDX-License-Identifier: Apache-2.0
"""Steps of optimisers, for a device and for the kernels of one that were compiled for the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddkern.updates import axpy, ema, sam_ascent, sgd_step
from helpers.matching import BLOCK, assert_same_values

# One network or several; rows that are no multiple of a vector are not aligned either.
SHAPES = (
    *((n,) for n in (0, 1, 2, 3, 4, 5, 31, 33, 70, 1023, 1024, 1025, 4095, 4096, 4097)),
    *((3, n) for n in (1, 4, 6, 70, 4097, BLOCK, BLOCK + 1)),
    (2, 2, 50),
    (2 * BLOCK + 33,),
)


def _values(shape: tuple[int, ...], seed: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if values.ndim > 1:
        values[0] = 0  # a network whose gradient is 0
    return values


def cases(shape: tuple[int, ...]) -> dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    """Return functions and their tensors by name."""
    x, y, z = (_values(shape, seed) for seed in range(3))
    lr = torch.tensor(0.03)
    return {
        "axpy": (lambda a, b: axpy(a, -0.7, b), (x, y)),
        "axpy-tensor": (lambda a, b, c: axpy(a, c, b), (x, y, lr)),
        "axpy-double": (lambda a, b, c: axpy(a, c, b), (x, y, lr.double() / 3)),
        "ema": (lambda a, b: ema(a, b, decay=0.999), (x, y)),
        "sgd": (lambda *t: sgd_step(*t, lr=0.03, momentum=0.9), (x, y, z)),
        "sgd-tensor": (lambda a, b, c, d: sgd_step(a, b, c, lr=d, momentum=0.9), (x, y, z, lr)),
        "ema-in-place": (lambda a, b: ema(a.clone(), b, decay=0.9, in_place=True), (x, y)),
        "sgd-in-place": (
            lambda a, b, c: sgd_step(a.clone(), b.clone(), c, lr=1.0, momentum=0.5, in_place=True),
            (x, y, z),
        ),
        "sam": (lambda a: sam_ascent(a, rho=0.05), (x,)),
        "sam-adaptive": (lambda a, b: sam_ascent(a, rho=0.5, parameters=b), (x, y)),
    }


def unusual() -> Tensor:
    """Return values at the ends of their range, and none."""
    ends = [0.0, -0.0, 1e-45, 1e-40, 3e38, -3e38, float("inf"), float("nan"), 1.0]
    return torch.tensor(ends)


def assert_all_same_as_on_the_cpu(
    shape: tuple[int, ...], on_device: Callable[[Callable[..., Any], tuple[Tensor, ...]], Any]
) -> None:
    """Fail unless every function has the bits of the CPU on a device."""
    for name, (function, tensors) in cases(shape).items():
        found, expected = on_device(function, tensors), function(*tensors)
        if isinstance(expected, Tensor):
            found, expected = (found,), (expected,)
        for x, y in zip(found, expected, strict=True):
            assert_same_values(x, y, f"{name} of {shape}")
