# SPDX-License-Identifier: Apache-2.0
"""Sums over pairs of lists of parameters, and their derivatives: kernels as operations of torch.

They live in torch's registry, so that torch.compile sees them as one node each. The registry takes
longer than the kernels do over a small network; outside of torch.compile it is gone around.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddkern import _core, kernel_calls
from ddkern.losses.buffers import empty_like
from ddkern.losses.lists import (
    any_needed,
    dense,
    dtype_of_result,
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

# What torch itself asks before it calls a function of autograd.
_in_torch_func: Callable[[], bool] = torch._C._are_functorch_transforms_active


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


def distance(lists: _Lists, groups: Sequence[int], batch_dims: int) -> Tensor:
    """The quotient of both sums.

    Raises
    ------
    ValueError
        If the second one is 0; on other devices than the CPU the program would wait for it, and in
        a graph of torch.compile it would cut that in two.
    """
    wide = dtype_of_result(lists[0])
    found: Tensor
    if _in_torch_func():
        # Its transformations go through what torch knows, not through kernels.
        student, target, start = lists
        to_target, of_start = sums_in_torch(student, target, start, groups, batch_dims)
        found = (to_target / of_start).to(wide)
        return found
    if _goes_around(lists, needed=True):
        tensors = [x for xs in lists for x in xs]
        found = _Distance.apply(len(lists[0]), groups, batch_dims, *tensors)  # type: ignore[no-untyped-call]
        return found
    both: Tensor = torch.ops.ddkern.trajectory_sums(*lists, groups, batch_dims)
    if both.is_cpu and not torch.compiler.is_compiling():
        _check_apart(both.detach()[1].numpy())
    found = (both[0] / both[1]).to(wide)
    return found


def _check_apart(of_start: NDArray[np.float64]) -> None:
    if 0 in of_start.ravel().tolist():
        first = [int(axis[0]) for axis in np.nonzero(of_start == 0)] if of_start.ndim else []
        where = f" at {tuple(first)}" if first else ""
        raise ValueError(f"start equals target{where}; the distance between them must not be 0")


def _goes_around(lists: _Lists, needed: bool) -> bool:
    """Whether a call need not go through the registry: nobody traces it, or needs its gradient."""
    tensors = [x for xs in lists for x in xs]
    return (
        not torch.compiler.is_compiling()
        and all(type(x) is Tensor or type(x) is nn.Parameter for x in tensors)
        and (needed or not torch.is_grad_enabled() or not any(x.requires_grad for x in tensors))
    )


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
    a: list[Tensor], b: list[Tensor], factor: Any, groups: Sequence[int], batch_dims: int
) -> list[Tensor]:
    wide = dtype_of_result(a)
    on_device = torch.as_tensor(factor, device=a[0].device)
    factors = [x.to(wide) for x in _factor_of_tensors(on_device, a, groups, batch_dims)]
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
    found: Tensor = kernel_calls.dispatch(
        student,
        (student, target, start, groups, batch_dims),
        on_cpu=_sums_on_cpu,
        on_device=_sums_on_device,
        in_torch=sums_in_torch,
    )
    return found


def _absolute(a: list[Tensor], b: list[Tensor], groups: Sequence[int], batch_dims: int) -> Tensor:
    found: Tensor = kernel_calls.dispatch(
        a,
        (a, b, groups, batch_dims),
        on_cpu=_absolute_on_cpu,
        on_device=_absolute_on_device,
        in_torch=absolute_in_torch,
    )
    return found


def _difference(
    a: list[Tensor], b: list[Tensor], factor: Any, groups: Sequence[int], batch_dims: int
) -> list[Tensor]:
    found: list[Tensor] = kernel_calls.dispatch(
        a,
        (a, b, factor, groups, batch_dims),
        on_cpu=_difference_on_cpu,
        on_device=_difference_on_device,
        in_torch=_difference_in_torch,
    )
    return found


def _sums_on_cpu(
    student: list[Tensor],
    target: list[Tensor],
    start: list[Tensor],
    groups: Sequence[int],
    batch_dims: int,
) -> Tensor:
    call = _Call(groups, batch_dims, student=student, target=target, start=start)
    found = _core.trajectory_sums(**call.arguments, n_threads=kernel_calls.n_threads())
    return torch.from_numpy(found.reshape(2, *call.shape))


def _sums_on_device(
    module: Any,
    student: list[Tensor],
    target: list[Tensor],
    start: list[Tensor],
    groups: Sequence[int],
    batch_dims: int,
) -> Tensor:
    call = _Call(groups, batch_dims, student=student, target=target, start=start)
    return call.sums(module, module.trajectory_sums, (2, *call.shape))


def _absolute_on_cpu(
    a: list[Tensor], b: list[Tensor], groups: Sequence[int], batch_dims: int
) -> Tensor:
    call = _Call(groups, batch_dims, student=a, target=b)
    found = _core.absolute_sums(**call.arguments, n_threads=kernel_calls.n_threads())
    return torch.from_numpy(found.reshape(call.shape))


def _absolute_on_device(
    module: Any, a: list[Tensor], b: list[Tensor], groups: Sequence[int], batch_dims: int
) -> Tensor:
    call = _Call(groups, batch_dims, student=a, target=b)
    return call.sums(module, module.absolute_sums, call.shape)


def _difference_on_cpu(
    a: list[Tensor], b: list[Tensor], factor: Any, groups: Sequence[int], batch_dims: int
) -> list[Tensor]:
    out = [empty_like(x) for x in a]
    call = _Call(groups, batch_dims, a=a, b=b, out=out)
    del call.arguments["n_totals"]
    factors = factor.reshape(-1).tolist()
    _core.scaled_difference(**call.arguments, factors=factors, n_threads=kernel_calls.n_threads())
    return out


def _difference_on_device(
    module: Any,
    a: list[Tensor],
    b: list[Tensor],
    factor: Any,
    groups: Sequence[int],
    batch_dims: int,
) -> list[Tensor]:
    out = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in a]
    call = _Call(groups, batch_dims, a=a, b=b, out=out)
    factors = torch.as_tensor(factor, dtype=torch.float64, device=a[0].device).detach().reshape(-1)
    kernel_calls.run(
        module.scaled_difference, a[0].device, **call.arguments, factors=factors.data_ptr()
    )
    return out


class _Call:
    """What a kernel is told of lists of tensors, all alike; it keeps them alive.

    Attributes
    ----------
    shape : list of int
        Of the totals: the axes of the batch, and one of groups where there are some.
    arguments : dict
        Addresses of all members' tensors by name, their sizes, and which total each is added to.
    """

    __slots__ = ("_first", "_lists", "arguments", "shape")

    def __init__(self, groups: Sequence[int], batch_dims: int, **lists: list[Tensor]) -> None:
        first = next(iter(lists.values()))
        self._first = first[0]
        n_groups = max(groups) + 1 if groups else 1
        self.shape: list[int] = []
        n_members = 1
        if batch_dims:
            self.shape = list(self._first.shape[:batch_dims])
            n_members = math.prod(self.shape)
            lists = {name: _members(xs, batch_dims) for name, xs in lists.items()}
        if groups:
            self.shape.append(n_groups)
        in_member = groups or [0] * len(first)
        total_of = in_member
        if n_members != 1:
            total_of = [g + n_groups * m for m in range(n_members) for g in in_member]
        self._lists = {name: [dense(x) for x in xs] for name, xs in lists.items()}
        like = next(iter(self._lists.values()))
        self.arguments: dict[str, Any] = {
            # Only a start may be missing as a whole.
            name: kernel_calls.addresses(xs, like, name) if xs else (None if like else [])
            for name, xs in self._lists.items()
        }
        self.arguments["sizes"] = [x.numel() for x in like]
        self.arguments["total_of"] = total_of
        self.arguments["n_totals"] = n_groups * n_members
        self.arguments["bfloat16"] = self._first.dtype == torch.bfloat16

    def sums(self, module: Any, function: Callable[..., None], shape: Sequence[int]) -> Tensor:
        """What a function of the module for a device sums up, float64 of a shape."""
        out = self._first.new_empty(shape, dtype=torch.float64)
        size = module.trajectory_workspace(sizes=self.arguments["sizes"])
        workspace = self._first.new_empty(size, dtype=torch.float64)
        kernel_calls.run(
            function,
            out.device,
            **self.arguments,
            workspace=workspace.data_ptr(),
            sums=out.data_ptr(),
        )
        return out


def _members(tensors: list[Tensor], batch_dims: int) -> list[Tensor]:
    """The tensors of each member of a batch."""
    members = itertools.product(*map(range, tensors[0].shape[:batch_dims])) if tensors else ()
    return [x[member] for member in members for x in tensors]


# ------------------------------------------------------------------------------------- derivatives


class _Distance(torch.autograd.Function):
    """The distance in one node of autograd, which the registry would make several of.

    Of a small network the arithmetic of single numbers takes as long as a kernel, if torch does it;
    what lies on the CPU numpy does.
    """

    @staticmethod
    def forward(ctx: Any, n: int, groups: list[int], batch_dims: int, *tensors: Tensor) -> Tensor:
        student, target, start = _unflatten(n, tensors)
        both: Any = _sums(student, target, start, groups, batch_dims)
        wide = dtype_of_result(student)
        ctx.n, ctx.groups, ctx.batch_dims = n, groups, batch_dims
        ctx.save_for_backward(*tensors)
        if not both.is_cpu:
            ctx.distance, ctx.of_start = both[0] / both[1], both[1]
            return cast(Tensor, ctx.distance.to(wide))
        to_target, of_start = both.numpy()
        _check_apart(of_start)
        with np.errstate(all="ignore"):
            ctx.distance, ctx.of_start = to_target / of_start, of_start
            as_wide = np.asarray(ctx.distance, np.float32 if wide == torch.float32 else np.float64)
        return torch.from_numpy(as_wide)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        student, target, start = lists = _unflatten(ctx.n, ctx.saved_tensors)
        how, difference = (ctx.groups, ctx.batch_dims), _difference
        distance, of_start = ctx.distance, ctx.of_start
        given: Any
        if torch.is_grad_enabled():
            # Derivatives of these may be asked for: what torch knows how to differentiate.
            to_target, of_start = sums_in_torch(student, target, start, *how)
            given, distance = grad.double(), to_target / of_start
            difference = _difference_in_torch
        else:
            of_torch = isinstance(of_start, Tensor)
            given = grad.double() if of_torch else grad.resolve_neg().numpy()
        needed = [any(part) for part in _unflatten(ctx.n, ctx.needs_input_grad[3:])]
        with np.errstate(all="ignore"):
            by_to_target = given / of_start  # which is float64
            by_of_start = -distance * by_to_target if needed[1] or needed[2] else by_to_target
            parts = _backward(difference, lists, by_to_target, by_of_start, needed, how)
        return (None, None, None, *[x for part in parts for x in part])


def _unflatten(n: int, values: Any) -> list[list[Any]]:
    return [list(values[first : first + n]) for first in (0, n, 2 * n)]


def _backward(
    difference: Callable[..., list[Tensor]],
    lists: _Lists,
    of_target: Any,
    of_start: Any,
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
