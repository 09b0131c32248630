# SPDX-License-Identifier: Apache-2.0
"""Matrices and sets of points for the losses on a device, and comparing them with the CPU.

The same cases run through `ddkern._cuda` on a GPU and through its kernels compiled for the host.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddkern.losses import gradient_distance, gradient_norm, mean_distance, mmd
from helpers.matching import BLOCK, assert_same_as_on_the_cpu, draw, special

PRODUCTS, COMBINATION = torch.ops.ddkern.row_products, torch.ops.ddkern.row_combination
MEANS = torch.ops.ddkern.segment_means
MMD, PULL = torch.ops.ddkern.mmd_means, torch.ops.ddkern.mmd_pull

# Rows and columns of the matrices of a list. A row is one warp's up to 1024 columns, a piece of the
# combination has 4096 values, and 32 pieces of a row are added at a time.
MATRICES: dict[str, list[tuple[int, int]]] = {
    "one-value": [(1, 1)],
    "nothing": [(0, 5), (3, 0)],
    "nothing-between": [(2, 3), (0, 7), (4, 0), (5, 40), (0, 0)],
    "one-row": [(1, 5000)],
    "one-column": [(37, 1), (5000, 1)],
    "tails": [(2, n) for n in range(1, 71)],
    "warps": [(7, 1023), (8, 1024), (9, 1024), (3, 1025)],
    "combinations": [(3, 4095), (3, 4096), (2, 4097), (1000, 7), (2, 9001)],
    "blocks": [(2, BLOCK - 1), (2, BLOCK), (3, BLOCK + 1), (1, 2 * BLOCK + 33)],
    "network": [(128, 27), (128, 128), (64, 1152), (10, 2048)],
    "large-table": [(1, 7)] * 33,
    "two-launches": [(1 + i % 3, 1 + 37 * i % 100) for i in range(300)],
    "totals-in-two-launches": [(2, 3)] * 255 + [(2, BLOCK + 5)] * 3,
    "long-total": [(1, 32 * BLOCK), (2, 33 * BLOCK - 5)],
}

# Rows, features and classes.
SEGMENTS = [
    (1, 1, 1),
    (7, 200, 3),
    (300, 65, 10),
    (40, 0, 2),
    (64, 64, 64),
    (130, 63, 1),
    (2048, 2, 3),
    (5001, 3, 4),
]

# Points of both sets, and features. On two multiprocessors the first are done in small tiles of
# distances, and the last in large ones.
SETS = [
    (1, 1, 1),
    (1, 16, 3),
    (16, 17, 64),
    (15, 33, 65),
    (40, 70, 10),
    (5, 3, 300),
    (31, 1, 4),
    (96, 95, 5),
    (90, 96, 36),
    (120, 125, 18),
    (129, 1, 16),
    (128, 128, 33),
]

RATES = torch.tensor([0.02, 0.2, 3.0], dtype=torch.float64)
MANY_RATES = torch.linspace(0.01, 2, 33, dtype=torch.float64)  # more than a launch takes along


def matrices(
    shapes: list[tuple[int, int]], dtype: torch.dtype, seed: int, offset: int = 0
) -> list[Tensor]:
    """Return matrices on the CPU, `offset` values past where their memory begins."""
    values = draw([rows * columns for rows, columns in shapes], dtype, seed, offset)
    return [x.view(shape) for x, shape in zip(values, shapes, strict=True)]


def factors(matrices: list[Tensor], seed: int = 9) -> list[Tensor]:
    """Return two float64 factors for each row."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(map(len, matrices))
    return [torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2)]


def unusual_matrices(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Return matrices of two columns with every pair of unusual values."""
    (a,), (b,) = special(dtype)
    return [a.view(-1, 2)], [b.view(-1, 2)]


def labels_of(n: int, n_classes: int, seed: int = 0) -> Tensor:
    """Return labels in any order that name every class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(n_classes, (n,), generator=generator)
    labels[torch.randperm(n, generator=generator)[:n_classes]] = torch.arange(n_classes)
    return labels


def points(seed: int, n: int, n_features: int, offset: int = 0) -> Tensor:
    """Return points whose kernels at `RATES` are neither 0 nor 1."""
    (values,) = draw([n * n_features], torch.float32, seed, offset)
    return values.mul_((2 / max(1, n_features)) ** 0.5).view(n, n_features)


def pull_factors() -> list[Tensor]:
    """Return what the two sums of a pull are multiplied by."""
    return list(torch.tensor([0.7, -1.3], dtype=torch.float64))


def assert_gradients_agree(a: list[Tensor], b: list[Tensor], on_device: Any) -> None:
    """Fail unless both operations on matrices have the bits of the CPU."""
    assert_same_as_on_the_cpu(PRODUCTS, [a, b], on_device)
    assert_same_as_on_the_cpu(COMBINATION, [a, b, *factors(a)], on_device)


def assert_sets_agree(
    x: Tensor, y: Tensor, on_device: Any, rates: Tensor = RATES, own: Tensor | None = None
) -> None:
    """Fail unless both operations on sets of points have the bits of the CPU."""
    assert_same_as_on_the_cpu(MMD, [x, y, rates], on_device)
    first, second = pull_factors()
    second = second if own is None else own
    assert_same_as_on_the_cpu(PULL, [x, y, rates, first, second], on_device)


def derivatives(name: str, tensors: list[Tensor], labels: Tensor) -> list[Tensor]:
    """Return a loss of two sets of points, and what it gives by both."""
    x, y = (tensor.requires_grad_() for tensor in tensors)
    losses: dict[str, Any] = {
        "mmd": lambda: mmd(x, y, [1.0, 2.0, 5.0]),
        "means": lambda: mean_distance(x, y, labels, labels.flip(0), n_classes=3),
        "norm": lambda: gradient_norm([x, y]),
        **{
            metric: lambda metric=metric: gradient_distance(x, y, metric)
            for metric in ("cosine", "flat_cosine", "mse", "normalized_mse", "euclidean")
        },
    }
    value = 3 * losses[name]()
    return [value.detach(), *torch.autograd.grad(value, [x, y])]


LOSSES = (
    "mmd",
    "means",
    "norm",
    "cosine",
    "flat_cosine",
    "mse",
    "normalized_mse",
    "euclidean",
)
