# SPDX-License-Identifier: Apache-2.0
"""Instance norm, ReLU and average pooling by two, in one pass over maps with the channels last."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ddkern import _core, kernel_calls
from ddkern.checks import as_number

__all__ = ["norm_relu_pool", "norm_relu_pool_reference"]

_KERNEL_DTYPES = (torch.float32, torch.bfloat16)


def norm_relu_pool(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """``avg_pool2d(relu(instance_norm(x) * weight + bias), 2)``, as one differentiable function.

    Parameters
    ----------
    x : Tensor, shape (n, channels, height, width)
        Sides of 2 or more. The kernel takes float32 and bfloat16 on the CPU, in
        ``torch.channels_last``; maps in another layout are copied into that one first. Other
        dtypes and devices go through :func:`norm_relu_pool_reference`.
    weight, bias : Tensor, shape (channels,)
        float32, or of the dtype of ``x``.
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor, shape (n, channels, height // 2, width // 2)
        Of the dtype of ``x``, in ``torch.channels_last`` where the kernel made it. An odd last row
        or column counts in the statistics alone.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or a shape is not as above.

    Notes
    -----
    Statistics are those of each image and channel, in float32, by a two-pass algorithm that large
    means do not harm; bfloat16 results are rounded once. Results and gradients have the same bits
    for any number of threads and every instruction set. At most ``torch.get_num_threads()``
    threads work, and no more than :func:`ddkern.backend.max_threads`.

    Only ``x`` and the statistics are kept for the backward pass. With ``create_graph=True`` that
    pass consists of torch's own operations, so that it can be differentiated itself, at their
    speed. Transforms of ``torch.func`` need the reference.

    Examples
    --------
    >>> import torch
    >>> from ddkern.layers import norm_relu_pool
    >>> x = torch.arange(16.0).reshape(1, 1, 4, 4)
    >>> norm_relu_pool(x, torch.ones(1), torch.zeros(1))
    tensor([[[[0.0000, 0.0000],
              [0.6508, 1.0847]]]])
    """
    eps = as_number("eps", eps, at_least=0.0)
    for name, value in (("x", x), ("weight", weight), ("bias", bias)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; it must be a torch.Tensor")
    if x.dim() != 4 or min(x.shape[2:]) < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; it must be (n, channels, height, width) with sides of "
            "2 or more"
        )
    for name, value in (("weight", weight), ("bias", bias)):
        if value.shape != x.shape[1:2]:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; it must be ({x.shape[1]},), one value a "
                "channel of x"
            )
    if not _kernel_takes(x, weight, bias):
        return norm_relu_pool_reference(x, weight, bias, eps)
    out: Tensor = _NormReluPool.apply(  # type: ignore[no-untyped-call]
        x.contiguous(memory_format=torch.channels_last), weight.float(), bias.float(), eps
    )
    return out


def norm_relu_pool_reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """What :func:`norm_relu_pool` computes, as three operations of torch: any device and dtype."""
    unit = functional.group_norm(x, x.shape[1], weight, bias, eps)
    return functional.avg_pool2d(functional.relu(unit), 2)


def _kernel_takes(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    # The reference answers for empty maps, and complains where torch would.
    return (
        x.dtype in _KERNEL_DTYPES
        and x.numel() > 0
        and all(t.device.type == "cpu" and t.layout == torch.strided for t in (x, weight, bias))
        and all(t.dtype in {torch.float32, x.dtype} for t in (weight, bias))
    )


class _NormReluPool(torch.autograd.Function):
    """The kernels as an operation of autograd; ``x`` is in channels_last, the rest float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        n, c, h, w = x.shape
        # The defaults of torch for dtypes and devices are the caller's and may be others.
        out = x.new_empty(n, h // 2, w // 2, c).permute(0, 3, 1, 2)
        mean, rstd = weight.new_empty(2, n, c)
        _core.norm_relu_pool_forward(
            x=_host_maps(x),
            weight=_host(weight),
            bias=_host(bias),
            eps=eps,
            out=_host_maps(out),
            mean=_host(mean),
            rstd=_host(rstd),
            n_threads=kernel_calls.n_threads(),
        )
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_differentiable_gradients(grad_out, x, weight, bias, ctx.eps), None)
        # The sums that the other two consist of are needed for this one, but not the reverse.
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_weight, grad_bias = weight.new_empty(2, len(weight))
        _core.norm_relu_pool_backward(
            grad_out=_host_maps(grad_out.contiguous(memory_format=torch.channels_last)),
            x=_host_maps(x),
            mean=_host(mean),
            rstd=_host(rstd),
            weight=_host(weight),
            bias=_host(bias),
            grad_x=None if grad_x is None else _host_maps(grad_x),
            grad_weight=_host(grad_weight),
            grad_bias=_host(grad_bias),
            n_threads=kernel_calls.n_threads(),
        )
        return grad_x, grad_weight, grad_bias, None


def _differentiable_gradients(
    grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The backward formula of the kernel in torch's operations: of x, weight and bias."""
    dtype = x.dtype
    grad_out, x = grad_out.to(weight.dtype), x.to(weight.dtype)
    centred = x - x.mean((2, 3), keepdim=True)
    rstd = (centred.square().mean((2, 3), keepdim=True) + eps).rsqrt()
    unit = centred * rstd
    scale = weight[:, None, None]
    closed = unit * scale + bias[:, None, None] <= 0
    g = _spread(grad_out, x.shape[2:]).masked_fill(closed, 0)
    grad_unit = g * scale
    grad_x = rstd * (
        grad_unit
        - grad_unit.mean((2, 3), keepdim=True)
        - unit * (grad_unit * unit).mean((2, 3), keepdim=True)
    )
    return grad_x.to(dtype), (g * unit).sum((0, 2, 3)), g.sum((0, 2, 3))


def _spread(grad_out: Tensor, size: torch.Size) -> Tensor:
    """The transpose of pooling: a quarter to each pixel of a window, 0 where there is none."""
    n, c, h, w = grad_out.shape
    quarters = (grad_out / 4)[:, :, :, None, :, None].expand(n, c, h, 2, w, 2)
    return functional.pad(
        quarters.reshape(n, c, 2 * h, 2 * w), (0, size[1] - 2 * w, 0, size[0] - 2 * h)
    )


def _host(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().contiguous().numpy()
    return array


def _host_maps(tensor: Tensor) -> NDArray[Any]:
    """Maps in channels_last as (n, h, w, c); bfloat16, which numpy lacks, as its bits."""
    tensor = tensor.detach().permute(0, 2, 3, 1)
    if tensor.dtype == torch.bfloat16:
        bits: NDArray[Any] = tensor.view(torch.int16).numpy().view(np.uint16)
        return bits
    values: NDArray[Any] = tensor.numpy()
    return values
