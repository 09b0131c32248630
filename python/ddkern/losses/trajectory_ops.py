# SPDX-License-Identifier: Apache-2.0
"""Sums over pairs of lists of parameters, and their derivatives: kernels as operations of torch.

They live in torch's registry, so that torch.compile sees them as one node each. The registry takes
longer than the kernels do over a small network; outside of torch.compile it is gone around.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddkern import _core, device_calls
from ddkern.losses.lists import (
    any_needed,
    dtype_of_result,
    empty_like,
    host,
    kernel_takes,
    n_threads,
)

__all__ = ["absolute", "absolute_in_torch", "distance", "sums", "sums_in_torch"]

# Of every operation `groups` has the group of each tensor, counted from 0, or is empty; the first
# `batch_dims` axes of every tensor are those of the batch.
_LIBRARY: Any = torch.library.Library("ddkern", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(
    "trajectory_sums(Tensor[] student, Tensor[] target, Tensor[] start, "
    "int[] groups, int batch_dims) -> Tensor"
)
_LIBRARY.define("absolute_sums(Tensor[] a, Tensor[] b, int[] groups, int batch_dims) -> Tensor")
_LIBRARY.define(
    "scaled_difference(Tensor[] a, Tensor[] b, Tensor factor, "
    "int[] groups, int batch_dims) -> Tensor[]"
)

_Lists = list[list[Tensor]]


def sums(
    student: list[Tensor],
    target: list[Tensor],
    start: list[Tensor],
    groups: Sequence[int],
    batch_dims: int,
) -> Tensor:
    """``(student - target)^2`` and, with a start, ``(start - target)^2``, else 0: float64."""
    if _goes_around([student, target, start], needed=False):
        return _sums(student, target, start, groups, batch_dims)
    found: Tensor = torch.ops.ddkern.trajectory_sums(student, target, start, groups, batch_dims)
    return found


def absolute(a: list[Tensor], b: list[Tensor], groups: Sequence[int], batch_dims: int) -> Tensor:
    """``|a - b|``: float64."""
    if _goes_around([a, b], needed=False):
        return _absolute(a, b, groups, batch_dims)
    found: Tensor = torch.ops.ddkern.absolute_sums(a, b, groups, batch_dims)
    return found


def distance(lists: _Lists, groups: Sequence[int], batch_dims: int) -> tuple[Tensor, Tensor | None]:
    """The quotient of both sums, and on the CPU, where it is known at once, the second one."""
    if _goes_around(lists, needed=True):
        tensors = [x for xs in lists for x in xs]
        found, of_start = _Distance.apply(len(lists[0]), groups, batch_dims, *tensors)  # type: ignore[no-untyped-call]
    else:
        found_sums: Tensor = torch.ops.ddkern.trajectory_sums(*lists, groups, batch_dims)
        found, of_start = found_sums[0] / found_sums[1], found_sums.detach()[1]
    known = of_start.is_cpu and not torch.compiler.is_compiling()
    return found, of_start if known else None


def _goes_around(lists: _Lists, needed: bool) -> bool:
    """Whether a call need not go through the registry: nobody traces it, or needs its gradient."""
    tensors = [x for xs in lists for x in xs]
    return (
        not torch.compiler.is_compiling()
        and all(type(x) in (Tensor, nn.Parameter) for x in tensors)
        and (needed or not torch.is_grad_enabled() or not any(x.requires_grad for x in tensors))
    )


@dataclass(frozen=True, slots=True)
class _Totals:
    """Which total each tensor of each member of a batch is added to."""

    shape: list[int]
    of: list[int]

    @classmethod
    def make(cls, tensors: list[Tensor], groups: Sequence[int], batch_dims: int) -> _Totals:
        batch = list(tensors[0].shape[:batch_dims])
        in_member = list(groups) or [0] * len(tensors)
        n_groups = max(in_member) + 1
        n_members = int(np.prod(batch)) if batch else 1
        of = [n_groups * member + group for member in range(n_members) for group in in_member]
        return cls([*batch, n_groups] if groups else batch, of)

    @property
    def count(self) -> int:
        return int(np.prod(self.shape)) if self.shape else 1


# ---------------------------------------------------------------------------------- in plain torch


def sums_in_torch(
    student: list[Tensor],
    target: list[Tensor],
    start: list[Tensor],
    groups: Sequence[int],
    batch_dims: int,
) -> Tensor:
    """The same as :func:`sums`."""

    def square(a: Tensor, b: Tensor) -> Tensor:
        return (a.double() - b.double()).square()

    first = _totals_in_torch(square, student, target, groups, batch_dims)
    if not start:
        return torch.stack([first, torch.zeros_like(first)])
    return torch.stack([first, _totals_in_torch(square, start, target, groups, batch_dims)])


def absolute_in_torch(
    a: list[Tensor], b: list[Tensor], groups: Sequence[int], batch_dims: int
) -> Tensor:
    """The same as :func:`absolute`."""

    def magnitude(x: Tensor, y: Tensor) -> Tensor:
        return (x.double() - y.double()).abs()

    return _totals_in_torch(magnitude, a, b, groups, batch_dims)


def _totals_in_torch(
    term: Callable[[Tensor, Tensor], Tensor],
    a: list[Tensor],
    b: list[Tensor],
    groups: Sequence[int],
    batch_dims: int,
) -> Tensor:
    parts = [
        term(x, y).reshape(*x.shape[:batch_dims], -1).sum(-1) for x, y in zip(a, b, strict=True)
    ]
    together = torch.stack(parts, -1)
    if not groups:
        return together.sum(-1)
    out = together.new_zeros(*together.shape[:-1], max(groups) + 1)
    return out.index_add(-1, torch.tensor(list(groups), device=out.device), together)


def _difference_in_torch(
    a: list[Tensor], b: list[Tensor], factor: Tensor, groups: Sequence[int], batch_dims: int
) -> list[Tensor]:
    wide = dtype_of_result(a)
    factors = [
        x.to(wide) for x in _factor_of_tensors(factor.to(a[0].device), a, groups, batch_dims)
    ]
    return [
        (f * (x.to(wide) - y.to(wide))).to(x.dtype) for f, x, y in zip(factors, a, b, strict=True)
    ]


def _factor_of_tensors(
    factor: Tensor, tensors: list[Tensor], groups: Sequence[int], batch_dims: int
) -> list[Tensor]:
    """The factor of each tensor, in a shape that multiplies it."""
    batch = tensors[0].shape[:batch_dims]
    of_total = factor.reshape(*batch, max(groups) + 1) if groups else factor.reshape(batch)
    return [
        (of_total[..., groups[i]] if groups else of_total).reshape(
            (*batch, *[1] * (x.dim() - batch_dims))
        )
        for i, x in enumerate(tensors)
    ]


# ----------------------------------------------------------------------------------------- kernels


def _sums(
    student: list[Tensor],
    target: list[Tensor],
    start: list[Tensor],
    groups: Sequence[int],
    batch_dims: int,
) -> Tensor:
    module = device_calls.module_for(student[0])
    if not _has_kernel(module, student):
        return sums_in_torch(student, target, start, groups, batch_dims)
    totals = _Totals.make(student, groups, batch_dims)
    members = [_members(xs, batch_dims) for xs in (student, target, start)]
    if module is None:
        found = _core.trajectory_sums(
            student=host(members[0]),
            target=host(members[1]),
            start=host(members[2]) if start else None,
            total_of=totals.of,
            n_totals=totals.count,
            n_threads=n_threads(),
        )
        return torch.from_numpy(found).view(2, *totals.shape)
    lists = {"student": members[0], "target": members[1]} | ({"start": members[2]} if start else {})
    like = student[0]
    out = like.new_empty(2, *totals.shape, dtype=torch.float64)
    workspace = _workspace(module, members[0], like)
    device_calls.run(
        module.trajectory_sums,
        like.device,
        **{"start": None} | _addresses(**lists),
        **_description(members[0], totals, like),
        workspace=workspace.data_ptr(),
        sums=out.data_ptr(),
    )
    return out


def _absolute(a: list[Tensor], b: list[Tensor], groups: Sequence[int], batch_dims: int) -> Tensor:
    module = device_calls.module_for(a[0])
    if not _has_kernel(module, a):
        return absolute_in_torch(a, b, groups, batch_dims)
    totals = _Totals.make(a, groups, batch_dims)
    members = [_members(xs, batch_dims) for xs in (a, b)]
    if module is None:
        found = _core.absolute_sums(
            student=host(members[0]),
            target=host(members[1]),
            total_of=totals.of,
            n_totals=totals.count,
            n_threads=n_threads(),
        )
        return torch.from_numpy(found).view(totals.shape)
    out = a[0].new_empty(totals.shape, dtype=torch.float64)
    workspace = _workspace(module, members[0], a[0])
    device_calls.run(
        module.absolute_sums,
        out.device,
        **_addresses(student=members[0], target=members[1]),
        **_description(members[0], totals, a[0]),
        workspace=workspace.data_ptr(),
        sums=out.data_ptr(),
    )
    return out


def _difference(
    a: list[Tensor],
    b: list[Tensor],
    factor: Tensor,
    groups: Sequence[int],
    batch_dims: int,
) -> list[Tensor]:
    module = device_calls.module_for(a[0])
    if not _has_kernel(module, a):
        return _difference_in_torch(a, b, factor, groups, batch_dims)
    totals = _Totals.make(a, groups, batch_dims)
    factors = factor.detach().reshape(-1)
    members = [_members(xs, batch_dims) for xs in (a, b)]
    if module is None:
        out = [empty_like(x) for x in a]
        _core.scaled_difference(
            a=host(members[0]),
            b=host(members[1]),
            out=host(_members(out, batch_dims)),
            total_of=totals.of,
            factors=factors.to(torch.float32).numpy(),
            n_threads=n_threads(),
        )
        return out
    out = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in a]
    on_device = factors.to(a[0].device, torch.float64)
    device_calls.run(
        module.scaled_difference,
        a[0].device,
        **_addresses(a=members[0], b=members[1], out=_members(out, batch_dims)),
        **_description(members[0], totals, a[0]),
        factors=on_device.data_ptr(),
    )
    return out


def _has_kernel(module: Any, tensors: list[Tensor]) -> bool:
    return kernel_takes(tensors) and (module is not None or tensors[0].is_cpu)


def _members(tensors: list[Tensor], batch_dims: int) -> list[Tensor]:
    """The tensors of each member of a batch, without gaps; views where they have none."""
    if batch_dims:
        members = itertools.product(*map(range, tensors[0].shape[:batch_dims])) if tensors else ()
        tensors = [x[member] for member in members for x in tensors]
    return [x.contiguous() for x in tensors]


def _addresses(**lists: list[Tensor]) -> dict[str, list[int]]:
    like = next(iter(lists.values()))
    if not like:
        return {name: [] for name in lists}
    return {name: device_calls.addresses(xs, like, name) for name, xs in lists.items()}


def _description(members: list[Tensor], totals: _Totals, like: Tensor) -> dict[str, Any]:
    return {
        "sizes": [x.numel() for x in members],
        "total_of": totals.of,
        "n_totals": totals.count,
        "bfloat16": like.dtype == torch.bfloat16,
    }


def _workspace(module: Any, members: list[Tensor], like: Tensor) -> Tensor:
    size = module.trajectory_workspace(sizes=[x.numel() for x in members])
    return like.new_empty(size, dtype=torch.float64)


# ------------------------------------------------------------------------------------- derivatives


class _Distance(torch.autograd.Function):
    """The distance in one node of autograd, which the registry would make several of."""

    @staticmethod
    def forward(
        n: int, groups: Sequence[int], batch_dims: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        student, target, start = _unflatten(n, tensors)
        to_target, of_start = _sums(student, target, start, groups, batch_dims)
        return to_target / of_start, of_start

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.n, ctx.groups, ctx.batch_dims, *tensors = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output, *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        distance, of_start, *tensors = ctx.saved_tensors
        student, target, start = lists = _unflatten(ctx.n, tensors)
        how = (ctx.groups, ctx.batch_dims)
        difference = _difference
        if torch.is_grad_enabled():
            # Derivatives of the derivatives may be asked for, and by functions of torch.func: what
            # torch knows how to differentiate.
            to_target, of_start = sums_in_torch(student, target, start, *how)
            distance, difference = to_target / of_start, _difference_in_torch
        needed = [any(part) for part in _unflatten(ctx.n, ctx.needs_input_grad[3:])]
        by_sums = grad / of_start, -grad * (distance / of_start)
        parts = _backward(difference, lists, *by_sums, needed, how)
        return (None, None, None, *[x for part in parts for x in part])


def _unflatten(n: int, values: Any) -> list[list[Any]]:
    return [list(values[first : first + n]) for first in (0, n, 2 * n)]


def _backward(
    difference: Callable[..., list[Tensor]],
    lists: _Lists,
    of_target: Tensor,
    of_start: Tensor,
    needed: list[bool],
    how: tuple[Sequence[int], int],
) -> list[list[Any]]:
    """Derivatives by student, target and start, from those by both sums."""
    student, target, start = lists
    by_student: list[Any] = [None] * len(student)
    by_target: list[Any] = [None] * len(target)
    by_start: list[Any] = [None] * len(start)
    # The derivative by the target is the sum of the other two, with the sign changed.
    if needed[0] or needed[1]:
        by_student = difference(student, target, 2 * of_target, *how)
        by_target = [-x for x in by_student] if needed[1] else by_target
    if start and (needed[2] or needed[1]):
        by_start = difference(start, target, 2 * of_start, *how)
        if needed[1]:
            by_target = [x - y for x, y in zip(by_target, by_start, strict=True)]
    return [by_student, by_target, by_start]


def _without_derivatives(how: tuple[Sequence[int], int]) -> tuple[list[None], None]:
    """What the registry expects for groups, one by one, and for the number of axes."""
    return [None] * len(how[0]), None


def _keep_sums(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    student, target, start, *how = inputs
    ctx.count, ctx.how = len(student), tuple(how)
    ctx.save_for_backward(*student, *target, *start)


def _sums_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    lists = _unflatten(ctx.count, list(ctx.saved_tensors))
    needed = [any_needed(need) for need in ctx.needs_input_grad[:3]]
    parts = _backward(torch.ops.ddkern.scaled_difference, lists, grad[0], grad[1], needed, ctx.how)
    return (*parts, *_without_derivatives(ctx.how))


def _keep_absolute(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    a, b, *how = inputs
    ctx.count, ctx.how = len(a), tuple(how)
    ctx.save_for_backward(*a, *b)


def _absolute_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    saved = list(ctx.saved_tensors)
    a, b = saved[: ctx.count], saved[ctx.count :]
    wide = dtype_of_result(a)
    factors = _factor_of_tensors(grad.to(wide), a, *ctx.how)
    of_a = [
        (f * torch.sign(x.to(wide) - y.to(wide))).to(x.dtype)
        for f, x, y in zip(factors, a, b, strict=True)
    ]
    return of_a, [-g for g in of_a], *_without_derivatives(ctx.how)


def _keep_difference(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    a, b, factor, *how = inputs
    ctx.count, ctx.how = len(a), tuple(how)
    ctx.save_for_backward(*a, *b, factor)


def _difference_backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    *saved, factor = ctx.saved_tensors
    a, b = saved[: ctx.count], saved[ctx.count :]
    given = [torch.zeros_like(x) if g is None else g for g, x in zip(grads, a, strict=True)]
    wide = dtype_of_result(a)
    factors = _factor_of_tensors(factor.to(wide), a, *ctx.how)
    of_a = [(f * g.to(wide)).to(g.dtype) for f, g in zip(factors, given, strict=True)]

    def product(x: Tensor, y: Tensor) -> Tensor:
        return x.double() * y.double()

    differences = [x.double() - y.double() for x, y in zip(a, b, strict=True)]
    of_factor = _totals_in_torch(product, given, differences, *ctx.how).reshape(factor.shape)
    of_b = [-g for g in of_a]
    return of_a, of_b, of_factor.to(factor.dtype), *_without_derivatives(ctx.how)


# ---------------------------------------------------------------------------------- the operations


def _sums_shape(
    student: list[Tensor],
    target: list[Tensor],  # noqa: ARG001
    start: list[Tensor],  # noqa: ARG001
    groups: Sequence[int],
    batch_dims: int,
) -> Tensor:
    return _totals_shape(student, (2,), groups, batch_dims)


def _absolute_shape(
    a: list[Tensor],
    b: list[Tensor],  # noqa: ARG001
    groups: Sequence[int],
    batch_dims: int,
) -> Tensor:
    return _totals_shape(a, (), groups, batch_dims)


def _totals_shape(
    tensors: list[Tensor], first: tuple[int, ...], groups: Sequence[int], batch_dims: int
) -> Tensor:
    last = (max(groups) + 1,) if groups else ()
    shape = (*first, *tensors[0].shape[:batch_dims], *last)
    return tensors[0].new_empty(shape, dtype=torch.float64)


def _difference_shape(
    a: list[Tensor],
    b: list[Tensor],  # noqa: ARG001
    factor: Tensor,  # noqa: ARG001
    groups: Sequence[int],  # noqa: ARG001
    batch_dims: int,  # noqa: ARG001
) -> list[Tensor]:
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in a]


for _name, _op, _shape, _derivative, _keep in (
    ("trajectory_sums", _sums, _sums_shape, _sums_backward, _keep_sums),
    ("absolute_sums", _absolute, _absolute_shape, _absolute_backward, _keep_absolute),
    (
        "scaled_difference",
        _difference,
        _difference_shape,
        _difference_backward,
        _keep_difference,
    ),
):
    _LIBRARY.impl(_name, _op, "CPU")
    _LIBRARY.impl(_name, _op, "CUDA")
    torch.library.register_fake(f"ddkern::{_name}", _shape)
    torch.library.register_autograd(f"ddkern::{_name}", _derivative, setup_context=_keep)
