# SPDX-License-Identifier: Apache-2.0
"""Lists of tensors for the losses on a device, and what the CPU makes of them.

The same lists run through `ddkern._cuda` on a GPU and through its kernels compiled for the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

BLOCK = 16 * 1024  # values of one sum: csrc/matching/trajectory/trajectory.h
DTYPES = (torch.float32, torch.bfloat16)

# Sizes of the tensors of a list.
LISTS: dict[str, list[int]] = {
    "one-value": [1],
    "nothing": [0],
    "nothing-twice": [0, 0],
    "nothing-between": [0, 5, 0, 0, 40, 0],
    "tails": list(range(1, 71)),
    "stages": [1023, 1024, 1025, 31 * 32, 33 * 32],
    "blocks": [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 33],
    "network": [3456, 128, 128, 128, 147_456, 128, 128, 128, 20_480, 10],
    "small-table": [7] * 32,
    "large-table": [7] * 33,
    "two-launches": [1 + 37 * i % 100 for i in range(300)],
    "nothing-in-a-launch": [0] * 256 + [3, 70],
    "long-total": [1] * 200 + [BLOCK + 1] * 3,
}

# Sizes of the tensors of a member, their groups, and the shape of a batch.
GROUPED: dict[str, tuple[list[int], list[int], tuple[int, ...]]] = {
    "a-tensor-each": ([5, BLOCK + 3, 1, 40], [0, 1, 2, 3], ()),
    "mixed": ([7, 2 * BLOCK + 1, 33, 64, 0, 9], [1, 0, 2, 1, 3, 0], ()),
    "batch": ([BLOCK + 5], [], (5,)),
    "batch-of-groups": ([70, 3, 1000], [1, 0, 1], (2, 3)),
    "totals-of-two-launches": ([3] * 300, list(range(300)), ()),
    "large-batch": ([40], [], (290,)),
    "batch-of-one": ([40, 2], [], (1,)),
    "batch-of-nothing": ([40, 2], [], (0,)),
}


def grouped(name: str, dtype: torch.dtype) -> tuple[list[list[Tensor]], list[int], int]:
    """Return students, targets and starts, the group of each tensor, and how many axes count."""
    sizes, groups, batch = GROUPED[name]
    generator = torch.Generator().manual_seed(len(name))
    lists = [
        [torch.randn(*batch, n, generator=generator).to(dtype) for n in sizes] for _ in range(3)
    ]
    return lists, groups, len(batch)


def of_one_total(op: Any) -> Callable[..., Any]:
    """Return an operation of lists without its last arguments, groups and batch."""
    return lambda *arguments: op(*arguments, [], 0)


SPECIAL = (0.0, -0.0, 1.0, float("nan"), float("inf"), -float("inf"), 1e-40, 3e38, -3e38, 1e-45)


def draw(sizes: list[int], dtype: torch.dtype, seed: int, offset: int = 0) -> list[Tensor]:
    """Return tensors on the CPU, `offset` values past where their memory begins."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(offset + n, generator=generator).to(dtype)[offset:] for n in sizes]


def special(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Return two lists that hold every pair of unusual values."""
    values = torch.tensor(SPECIAL, dtype=torch.float32).to(dtype)
    n = len(values)
    return [values.repeat(n)], [values.repeat_interleave(n)]


def assert_same_values(found: Tensor, expected: Tensor, what: str) -> None:
    """Fail unless all bits are equal, but for the bits of what is not a number."""
    found, expected = found.cpu(), expected.cpu()
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), what
    assert torch.equal(found.isnan(), expected.isnan()), what
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[found.element_size()]
    numbers = ~expected.isnan()
    assert torch.equal(found[numbers].view(integers), expected[numbers].view(integers)), what


def assert_same_as_on_the_cpu(
    op: Any, arguments: list[Any], on_device: Callable[[Any, list[Any]], Any]
) -> None:
    """Fail unless `on_device(op, arguments)` has the bits of `op(*arguments)`."""
    found, expected = on_device(op, arguments), op(*arguments)
    if isinstance(expected, Tensor):
        found, expected = [found], [expected]
    assert len(found) == len(expected)
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        assert_same_values(x, y, f"{op}, {i} of {len(expected)}")
