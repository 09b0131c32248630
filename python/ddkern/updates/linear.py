# SPDX-License-Identifier: Apache-2.0
"""Sums of two vectors: ``x + a y``, and moving averages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddkern import _core, kernel_calls
from ddkern.updates.flat import (
    array,
    check,
    coefficient,
    kernel_takes,
    scalar,
    wide,
    write,
)

__all__ = ["axpy", "axpy_reference", "ema", "ema_reference"]

_LIBRARY: Any = torch.library.Library("ddkern", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("linear_update(Tensor x, float alpha, Tensor y, Tensor beta) -> Tensor")


def axpy(x: Tensor, a: float | Tensor, y: Tensor) -> Tensor:
    """``x + a y``.

    Parameters
    ----------
    x, y : Tensor
        Of one shape, floating dtype and device.
    a : float or Tensor
        One number. A tensor on the device is not waited for.

    Returns
    -------
    Tensor
        Differentiable any number of times with respect to all three.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or shapes, dtypes or devices differ.

    Notes
    -----
    On the CPU and on CUDA, float32 takes one pass. The product and the sum are rounded, and have
    the same bits for any number of threads, every instruction set and every device. Other devices
    and dtypes go through :func:`axpy_reference`.

    Examples
    --------
    >>> import torch
    >>> from ddkern.updates import axpy
    >>> axpy(torch.ones(2), -0.5, torch.tensor([1.0, 2.0]))
    tensor([0.5000, 0.0000])
    """
    check(x=x, y=y)
    out: Tensor = torch.ops.ddkern.linear_update(x, 1.0, y, scalar("a", a))
    return out


def ema(average: Tensor, x: Tensor, *, decay: float, in_place: bool = False) -> Tensor:
    """``decay average + (1 - decay) x``, a moving average; see :func:`axpy`.

    With ``in_place`` the result is written to ``average``, as under ``torch.no_grad``, and that is
    returned.
    """
    check(average=average, x=x)
    rest = torch.tensor(1 - decay, dtype=torch.float64)
    if not in_place:
        out: Tensor = torch.ops.ddkern.linear_update(average, decay, x, rest)
        return out
    if not (kernel_takes(average) and average.is_contiguous()):
        return write(average, ema_reference(average.detach(), x.detach(), decay=decay))
    _into(average, average, decay, x.contiguous(), rest)
    torch.autograd.graph.increment_version(average)
    return average


def axpy_reference(x: Tensor, a: float | Tensor, y: Tensor) -> Tensor:
    """What :func:`axpy` computes, in operations of torch."""
    check(x=x, y=y)
    return _in_torch(x, 1.0, y, scalar("a", a))


def ema_reference(average: Tensor, x: Tensor, *, decay: float) -> Tensor:
    """What :func:`ema` computes, in operations of torch."""
    check(average=average, x=x)
    return _in_torch(average, decay, x, torch.tensor(1 - decay, dtype=torch.float64))


# ----------------------------------------------------------------------------------- the operation


def _in_torch(x: Tensor, alpha: float, y: Tensor, beta: Tensor) -> Tensor:
    dtype = wide(x.dtype)
    return (alpha * x.to(dtype) + beta.to(dtype) * y.to(dtype)).to(x.dtype)


def _update(x: Tensor, alpha: float, y: Tensor, beta: Tensor) -> Tensor:
    if not kernel_takes(x, y):
        return _in_torch(x, alpha, y, beta)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _into(out, x.contiguous(), alpha, y.contiguous(), beta)
    return out


def _into(out: Tensor, x: Tensor, alpha: float, y: Tensor, beta: Tensor) -> None:
    module = kernel_calls.module_for(x)
    if module is None:
        _core.linear_update(
            x=array(x),
            y=array(y),
            out=array(out),
            alpha=alpha,
            beta=float(beta.detach()),
            n_threads=kernel_calls.n_threads(),
        )
        return
    number, at = coefficient(beta, x.device)
    kernel_calls.run(
        module.linear_update,
        x.device,
        n=x.numel(),
        x=x.data_ptr(),
        y=y.data_ptr(),
        out=out.data_ptr(),
        alpha=alpha,
        beta=number,
        beta_at=0 if at is None else at.data_ptr(),
    )


def _shape(x: Tensor, alpha: float, y: Tensor, beta: Tensor) -> Tensor:  # noqa: ARG001
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    _, ctx.alpha, y, beta = inputs
    ctx.save_for_backward(y, beta)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    y, beta = ctx.saved_tensors
    for_x, _, for_y, for_beta = ctx.needs_input_grad
    dtype = wide(grad.dtype)
    of_x = (ctx.alpha * grad.to(dtype)).to(grad.dtype) if for_x else None
    of_y = (beta.to(dtype) * grad.to(dtype)).to(grad.dtype) if for_y else None
    of_beta = (grad.double() * y.double()).sum().to(beta) if for_beta else None
    return of_x, None, of_y, of_beta


_LIBRARY.impl("linear_update", _update, "CPU")
_LIBRARY.impl("linear_update", _update, "CUDA")
torch.library.register_fake("ddkern::linear_update", _shape)
torch.library.register_autograd("ddkern::linear_update", _backward, setup_context=_keep)
