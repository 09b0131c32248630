# SPDX-License-Identifier: Apache-2.0
"""How far parameters are from those of an expert, relative to where they started.

The distance of trajectory matching: G. Cazenavette et al., "Dataset distillation by matching
training trajectories", CVPR 2022, equation 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddkern import _core, device_calls
from ddkern.losses.lists import (
    Parameters,
    any_needed,
    as_lists,
    dtype_of_result,
    empty_like,
    host,
    kernel_takes,
    n_threads,
)

__all__ = [
    "absolute_distance",
    "absolute_distance_reference",
    "squared_distance",
    "squared_distance_reference",
    "trajectory_distance",
    "trajectory_distance_reference",
]

# The operations live in torch's registry, so that torch.compile sees them as one node each.
_LIBRARY: Any = torch.library.Library("ddkern", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("trajectory_sums(Tensor[] student, Tensor[] target, Tensor[] start) -> Tensor")
_LIBRARY.define("absolute_sum(Tensor[] a, Tensor[] b) -> Tensor")
_LIBRARY.define("scaled_difference(Tensor[] a, Tensor[] b, Tensor factor) -> Tensor[]")


def trajectory_distance(student: Parameters, target: Parameters, start: Parameters) -> Tensor:
    """``|student - target|^2 / |start - target|^2``, over all parameters together.

    Parameters
    ----------
    student, target, start : Tensor or sequence of Tensor
        Parameters of one network: where a student is, where it should be, where it began. Of any
        shapes, the same in all three, and of one floating dtype and device. Lists are not
        flattened.

    Returns
    -------
    Tensor
        A single number, float32 (float64 for float64 parameters); differentiable any number of
        times with respect to all of them.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, shapes, dtypes or devices differ, or ``start`` equals
        ``target``; on other devices than the CPU, which are not waited for, and under
        ``torch.compile`` the distance is infinite or NaN then.

    Notes
    -----
    Float32 and bfloat16 parameters take one pass over the three, and the derivative one more over
    two of them: on the CPU, and on CUDA devices of compute capability 8.0 and up where ddkern was
    built with CUDA. Sums are float64 and have the same bits for any number of threads, every
    instruction set and every device. On CUDA nothing waits for the device, and a call can be
    captured in a graph. Other devices and dtypes go through :func:`trajectory_distance_reference`.

    Examples
    --------
    >>> import torch
    >>> from ddkern.losses import trajectory_distance
    >>> start, target = torch.zeros(4), torch.full((4,), 2.0)
    >>> trajectory_distance(torch.ones(4), target, start)
    tensor(0.2500)
    """
    lists = as_lists({"student": student, "target": target, "start": start})
    sums: Tensor = torch.ops.ddkern.trajectory_sums(*lists)
    # Elsewhere the program would wait for the device, and a compiled graph would be cut in two.
    if sums.is_cpu and not torch.compiler.is_compiling() and float(sums.detach()[1]) == 0:
        raise ValueError("start equals target; the distance between them must not be 0")
    return (sums[0] / sums[1]).to(dtype_of_result(lists[0]))


def squared_distance(a: Parameters, b: Parameters) -> Tensor:
    """``|a - b|^2`` over all parameters together; see :func:`trajectory_distance`."""
    lists = as_lists({"a": a, "b": b})
    sums: Tensor = torch.ops.ddkern.trajectory_sums(*lists, [])
    return sums[0].to(dtype_of_result(lists[0]))


def absolute_distance(a: Parameters, b: Parameters) -> Tensor:
    """``|a - b|`` summed over all parameters together; see :func:`trajectory_distance`.

    What matching with automatic lengths compares the steps of a student by: D. Liu et al.,
    "Dataset distillation by automatic training trajectories", ECCV 2024. Where ``a`` equals ``b``
    the derivative is 0.
    """
    lists = as_lists({"a": a, "b": b})
    total: Tensor = torch.ops.ddkern.absolute_sum(*lists)
    return total.to(dtype_of_result(lists[0]))


def absolute_distance_reference(a: Parameters, b: Parameters) -> Tensor:
    """What :func:`absolute_distance` computes, in operations of torch."""
    lists = as_lists({"a": a, "b": b})
    return _absolute_in_torch(*lists).to(dtype_of_result(lists[0]))


def trajectory_distance_reference(
    student: Parameters, target: Parameters, start: Parameters
) -> Tensor:
    """What :func:`trajectory_distance` computes, in operations of torch."""
    lists = as_lists({"student": student, "target": target, "start": start})
    sums = _sums_in_torch(lists[0], lists[1], lists[2])
    return (sums[0] / sums[1]).to(dtype_of_result(lists[0]))


def squared_distance_reference(a: Parameters, b: Parameters) -> Tensor:
    """What :func:`squared_distance` computes, in operations of torch."""
    lists = as_lists({"a": a, "b": b})
    return _sums_in_torch(lists[0], lists[1], [])[0].to(dtype_of_result(lists[0]))


# ---------------------------------------------------------------------------------- the operations


def _sums_in_torch(student: list[Tensor], target: list[Tensor], start: list[Tensor]) -> Tensor:
    to_target = [
        (a.double() - b.double()).square().sum() for a, b in zip(student, target, strict=True)
    ]
    of_start = [
        (a.double() - b.double()).square().sum()
        for a, b in zip(start, target if start else [], strict=True)
    ]
    first = torch.stack(to_target).sum()
    second = torch.stack(of_start).sum() if of_start else torch.zeros_like(first)
    return torch.stack([first, second])


def _absolute_in_torch(a: list[Tensor], b: list[Tensor]) -> Tensor:
    sums = [(x.double() - y.double()).abs().sum() for x, y in zip(a, b, strict=True)]
    return torch.stack(sums).sum()


def _difference_in_torch(a: list[Tensor], b: list[Tensor], factor: Tensor) -> list[Tensor]:
    wide = dtype_of_result(a)
    return [
        (factor.to(wide) * (x.to(wide) - y.to(wide))).to(x.dtype) for x, y in zip(a, b, strict=True)
    ]


def _sums(student: list[Tensor], target: list[Tensor], start: list[Tensor]) -> Tensor:
    if not kernel_takes(student):
        return _sums_in_torch(student, target, start)
    module = device_calls.module_for(student[0])
    if module is not None:
        return _sums_on_device(module, student, target, start)
    if student[0].is_cpu:
        return _sums_on_cpu(student, target, start)
    return _sums_in_torch(student, target, start)


def _absolute(a: list[Tensor], b: list[Tensor]) -> Tensor:
    if not kernel_takes(a):
        return _absolute_in_torch(a, b)
    module = device_calls.module_for(a[0])
    if module is not None:
        return _absolute_on_device(module, a, b)
    if a[0].is_cpu:
        total = _core.absolute_sum(student=host(a), target=host(b), n_threads=n_threads())
        return torch.tensor(total, dtype=torch.float64)
    return _absolute_in_torch(a, b)


def _difference(a: list[Tensor], b: list[Tensor], factor: Tensor) -> list[Tensor]:
    if not kernel_takes(a):
        return _difference_in_torch(a, b, factor)
    module = device_calls.module_for(a[0])
    if module is not None:
        return _difference_on_device(module, a, b, factor)
    if a[0].is_cpu:
        return _difference_on_cpu(a, b, factor)
    return _difference_in_torch(a, b, factor)


def _sums_on_device(
    module: Any, student: list[Tensor], target: list[Tensor], start: list[Tensor]
) -> Tensor:
    first, sizes = student[0], [x.numel() for x in student]
    flat = {"student": _dense(student), "target": _dense(target), "start": _dense(start)}
    found = {name: device_calls.addresses(xs, student, name) for name, xs in flat.items() if xs}
    n_workspace = module.trajectory_workspace(sizes=sizes)
    workspace = first.new_empty(n_workspace, dtype=torch.float64)
    sums = first.new_empty(2, dtype=torch.float64)
    device_calls.run(
        module.trajectory_sums,
        first.device,
        student=found["student"],
        target=found["target"],
        start=found.get("start"),
        sizes=sizes,
        bfloat16=first.dtype == torch.bfloat16,
        workspace=workspace.data_ptr(),
        sums=sums.data_ptr(),
    )
    return sums


def _absolute_on_device(module: Any, a: list[Tensor], b: list[Tensor]) -> Tensor:
    first, sizes = a[0], [x.numel() for x in a]
    flat = {"student": _dense(a), "target": _dense(b)}
    n_workspace = module.trajectory_workspace(sizes=sizes)
    workspace = first.new_empty(n_workspace, dtype=torch.float64)
    total = first.new_empty((), dtype=torch.float64)
    device_calls.run(
        module.absolute_sum,
        first.device,
        **{name: device_calls.addresses(xs, a, name) for name, xs in flat.items()},
        sizes=sizes,
        bfloat16=first.dtype == torch.bfloat16,
        workspace=workspace.data_ptr(),
        total=total.data_ptr(),
    )
    return total


def _difference_on_device(
    module: Any, a: list[Tensor], b: list[Tensor], factor: Tensor
) -> list[Tensor]:
    first = a[0]
    out = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in a]
    flat = {"a": _dense(a), "b": _dense(b), "out": out}
    scale = factor.detach().to(first.device, torch.float64)
    device_calls.run(
        module.scaled_difference,
        first.device,
        **{name: device_calls.addresses(xs, a, name) for name, xs in flat.items()},
        sizes=[x.numel() for x in a],
        bfloat16=first.dtype == torch.bfloat16,
        factor=scale.data_ptr(),
    )
    return out


def _dense(tensors: list[Tensor]) -> list[Tensor]:
    return [x.contiguous() for x in tensors]


def _sums_on_cpu(student: list[Tensor], target: list[Tensor], start: list[Tensor]) -> Tensor:
    sums = _core.trajectory_sums(
        student=host(student),
        target=host(target),
        start=host(start) if start else None,
        n_threads=n_threads(),
    )
    return torch.tensor(sums, dtype=torch.float64)


def _difference_on_cpu(a: list[Tensor], b: list[Tensor], factor: Tensor) -> list[Tensor]:
    out = [empty_like(x) for x in a]
    _core.scaled_difference(
        a=host(a), b=host(b), out=host(out), factor=float(factor), n_threads=n_threads()
    )
    return out


def _sums_shape(student: list[Tensor], target: list[Tensor], start: list[Tensor]) -> Tensor:  # noqa: ARG001
    return student[0].new_empty(2, dtype=torch.float64)


def _difference_shape(a: list[Tensor], b: list[Tensor], factor: Tensor) -> list[Tensor]:  # noqa: ARG001
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in a]


def _keep_sums(ctx: Any, inputs: tuple[list[Tensor], ...], output: Tensor) -> None:  # noqa: ARG001
    student, target, start = inputs
    ctx.count, ctx.has_start = len(student), bool(start)
    ctx.save_for_backward(*student, *target, *start)


def _sums_backward(ctx: Any, grad: Tensor) -> tuple[Any, Any, Any]:
    n, saved = ctx.count, list(ctx.saved_tensors)
    student, target, start = saved[:n], saved[n : 2 * n], saved[2 * n :]
    for_student, for_target, for_start = map(any_needed, ctx.needs_input_grad)
    difference = torch.ops.ddkern.scaled_difference
    of_student, of_start, of_target = [None] * n, [None] * len(start), [None] * n
    # The derivative by the target is the sum of the other two, with the sign changed.
    if for_student or for_target:
        of_student = difference(student, target, 2 * grad[0])
        of_target = [-x for x in of_student] if for_target else of_target
    if start and (for_start or for_target):
        of_start = difference(start, target, 2 * grad[1])
        if for_target:
            of_target = [x - y for x, y in zip(of_target, of_start, strict=True)]
    return of_student, of_target, of_start


def _absolute_shape(a: list[Tensor], b: list[Tensor]) -> Tensor:  # noqa: ARG001
    return a[0].new_empty((), dtype=torch.float64)


def _keep_absolute(ctx: Any, inputs: tuple[list[Tensor], ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.count = len(inputs[0])
    ctx.save_for_backward(*inputs[0], *inputs[1])


def _absolute_backward(ctx: Any, grad: Tensor) -> tuple[Any, Any]:
    saved = list(ctx.saved_tensors)
    a, b = saved[: ctx.count], saved[ctx.count :]
    wide = dtype_of_result(a)
    of_a = [
        (grad.to(wide) * torch.sign(x.to(wide) - y.to(wide))).to(x.dtype)
        for x, y in zip(a, b, strict=True)
    ]
    return of_a, [-g for g in of_a]


def _keep_difference(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    a, b, factor = inputs
    ctx.count = len(a)
    ctx.save_for_backward(*a, *b, factor)


def _difference_backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    *saved, factor = ctx.saved_tensors
    a, b = saved[: ctx.count], saved[ctx.count :]
    given = [torch.zeros_like(x) if g is None else g for g, x in zip(grads, a, strict=True)]
    wide = dtype_of_result(a)
    of_a = [(factor.to(wide) * g.to(wide)).to(g.dtype) for g in given]
    of_factor = torch.stack(
        [
            (g.double() * (x.double() - y.double())).sum()
            for g, x, y in zip(given, a, b, strict=True)
        ]
    ).sum()
    return of_a, [-g for g in of_a], of_factor.to(factor.dtype)


for _name, _op, _shape, _backward, _keep in (
    ("trajectory_sums", _sums, _sums_shape, _sums_backward, _keep_sums),
    ("absolute_sum", _absolute, _absolute_shape, _absolute_backward, _keep_absolute),
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
    torch.library.register_autograd(f"ddkern::{_name}", _backward, setup_context=_keep)
