# SPDX-License-Identifier: Apache-2.0
"""What the updates share: checks, where they run, and numbers as tensors."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ddkern import kernel_calls

__all__ = ["array", "check", "coefficient", "kernel_takes", "scalar", "wide", "write"]


def check(**tensors: Any) -> None:
    """Fail unless all are tensors of floating point of one shape, dtype and device."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise TypeError(f"{name} must be a tensor of floating point")
        found = (tuple(tensor.shape), tensor.dtype, tensor.device)
        expected = (tuple(first.shape), first.dtype, first.device)
        if found != expected:
            raise ValueError(
                f"{name} has shape {found[0]}, {found[1]} on {found[2]}; it must have shape "
                f"{expected[0]}, {expected[1]} on {expected[2]}, as {first_name}"
            )


def scalar(name: str, value: Any) -> Tensor:
    """A number, or a tensor of one number, as a tensor of no axes."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} has shape {tuple(value.shape)}; it must be one number")
        return value.reshape(())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number or a tensor of one, not {type(value).__name__}")
    return torch.tensor(float(value), dtype=torch.float64)


def kernel_takes(*tensors: Tensor) -> bool:
    """Whether there is a kernel for tensors that are alike."""
    return (
        all(x.dtype == torch.float32 and x.layout == torch.strided for x in tensors)
        and tensors[0].device.type != "meta"
        and (tensors[0].is_cpu or kernel_calls.module_for(tensors[0]) is not None)
    )


def array(tensor: Tensor) -> NDArray[Any]:
    """The values of a tensor without gaps, in place and flat."""
    values: NDArray[Any] = tensor.detach().view(-1).numpy()
    return values


def coefficient(value: Tensor, device: torch.device) -> tuple[float, Tensor | None]:
    """A number for a kernel; where it lies on the device, 0 and a float64 tensor instead."""
    if value.is_cpu:
        return float(value.detach()), None
    return 0.0, value.detach().to(device, torch.float64)


def wide(dtype: torch.dtype) -> torch.dtype:
    """What values of a dtype are computed in, where torch does: 16 bits are too few."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def write(into: Tensor, values: Tensor) -> Tensor:
    """Copy without a trace for autograd, but so that it notices."""
    with torch.no_grad():
        return into.copy_(values)
