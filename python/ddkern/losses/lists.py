# SPDX-License-Identifier: Apache-2.0
"""Lists of tensors: what the losses between networks take, and how it reaches a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddkern.checks import as_count, as_integer

__all__ = [
    "Parameters",
    "any_needed",
    "as_groups",
    "as_lists",
    "dense",
    "dtype_of_result",
    "host_array",
]

Parameters: TypeAlias = Tensor | Sequence[Tensor]
"""A tensor, or the tensors of a network in their order."""


def as_lists(arguments: dict[str, Any], batch_dims: int = 0) -> list[list[Tensor]]:
    """Arguments by name as lists of tensors that agree in shapes, dtype and device.

    The first ``batch_dims`` axes of all tensors are expanded to a common shape.
    """
    as_count("batch_dims", batch_dims, at_least=0)
    if batch_dims == 0 and _one_each(*arguments.values()):
        return [[value] for value in arguments.values()]
    lists = {
        name: [value] if isinstance(value, Tensor) else list(value)
        for name, value in arguments.items()
    }
    first_name, *_ = lists
    first = lists[first_name]
    for name, tensors in lists.items():
        if len(tensors) != len(first) or not first:
            raise ValueError(
                f"{name} has {len(tensors)} tensors and {first_name} {len(first)}; they must have "
                "the same number, one at least"
            )
        for index, (tensor, other) in enumerate(zip(tensors, first, strict=True)):
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                raise TypeError(f"{name}[{index}] must be a tensor of floating point")
            if tensor.dim() < batch_dims:
                raise ValueError(
                    f"{name}[{index}] has shape {tuple(tensor.shape)}; it must have "
                    f"batch_dims={batch_dims} axes at least"
                )
            if not _alike(tensor, other, first[0], batch_dims):
                raise ValueError(
                    f"{name}[{index}] has shape {tuple(tensor.shape[batch_dims:])}, {tensor.dtype} "
                    f"on {tensor.device}; it must have shape {tuple(other.shape[batch_dims:])}, "
                    f"{first[0].dtype} on {first[0].device}, as {first_name}"
                )
    return _expand(lists, batch_dims) if batch_dims else list(lists.values())


def _one_each(first: Any, *others: Any) -> bool:
    """Whether all are single tensors with which nothing is wrong: known sooner than what is."""
    if not isinstance(first, Tensor) or not first.is_floating_point():
        return False
    shape, dtype, device = first.shape, first.dtype, first.device
    for x in others:
        if not isinstance(x, Tensor) or x.shape != shape or x.dtype != dtype or x.device != device:
            return False
    return True


def _alike(tensor: Tensor, other: Tensor, first: Tensor, batch_dims: int) -> bool:
    shapes = (tensor.shape, other.shape)
    if batch_dims:
        shapes = (tensor.shape[batch_dims:], other.shape[batch_dims:])
    return shapes[0] == shapes[1] and tensor.dtype == first.dtype and tensor.device == first.device


def _expand(lists: dict[str, list[Tensor]], batch_dims: int) -> list[list[Tensor]]:
    batches = {tuple(x.shape[:batch_dims]) for xs in lists.values() for x in xs}
    try:
        batch = torch.broadcast_shapes(*batches)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(
            f"the first {batch_dims} axes of {', '.join(lists)} have shapes "
            f"{sorted(batches)}; they must be alike, or 1"
        ) from error
    return [[x.expand(*batch, *x.shape[batch_dims:]) for x in xs] for xs in lists.values()]


def as_groups(groups: Any, arguments: dict[str, Any]) -> list[int]:
    """For each tensor the place of its group among the ascending ids; empty without groups."""
    if groups is None:
        return []
    name, value = next(iter(arguments.items()))
    n_tensors = 1 if isinstance(value, Tensor) else len(value)
    ids = [as_integer("groups", group, "it must hold integers") for group in groups]
    if len(ids) != n_tensors:
        raise ValueError(
            f"groups has {len(ids)} ids; it must have {n_tensors}, one a tensor of {name}"
        )
    place = {group: index for index, group in enumerate(sorted(set(ids)))}
    return [place[group] for group in ids]


def dtype_of_result(tensors: list[Tensor]) -> torch.dtype:
    """float32, unless the tensors are float64."""
    return torch.float64 if tensors[0].dtype == torch.float64 else torch.float32


def dense(tensor: Tensor) -> Tensor:
    """As a kernel reads it: without gaps, in place where there are none.

    torch may also have put a minus off (a bit of the tensor), which a kernel would not see.
    """
    return tensor.contiguous().resolve_neg()


def host_array(tensor: Tensor) -> NDArray[Any]:
    """:func:`dense`, as an array of the same shape; bfloat16, which numpy lacks, as bits."""
    values = dense(tensor.detach())
    if values.dtype == torch.bfloat16:
        return values.view(torch.int16).numpy().view(np.uint16)
    return values.numpy()


def any_needed(needed: Any) -> bool:
    """Whether a tensor, or one of a list, needs a gradient."""
    return any(needed) if isinstance(needed, list | tuple) else bool(needed)
