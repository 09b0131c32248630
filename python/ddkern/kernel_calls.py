# SPDX-License-Identifier: Apache-2.0
"""Kernels called with tensors of torch: who works on them, with which threads and addresses.

The extension module of a device gets addresses and sizes, never objects, and puts its work into
torch's current stream. Nothing here waits for the device or takes memory from elsewhere than torch,
so that calls can be captured in a graph.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddkern import _core
from ddkern.errors import CudaError

__all__ = ["addresses", "dispatch", "module_for", "n_threads", "run", "use_module"]

_LEAST_CAPABILITY = (8, 0)


class _StandIn(NamedTuple):
    """A module that works on tensors of another type of device than its own."""

    device_type: str
    module: Any


_stand_in: _StandIn | None = None


@contextlib.contextmanager
def use_module(module: Any, device_type: str = "cpu") -> Iterator[None]:
    """Work on the tensors of a type of devices with ``module``, for tests without a GPU."""
    global _stand_in  # noqa: PLW0603
    before = _stand_in
    _stand_in = _StandIn(device_type, module)
    try:
        yield
    finally:
        _stand_in = before


def module_for(tensor: Tensor) -> Any:
    """Return the module that works where a tensor lies; None where there is none."""
    if _stand_in is None:
        return _cuda_for(tensor.device.index) if tensor.is_cuda else None
    return _stand_in.module if tensor.device.type == _stand_in.device_type else None


@functools.cache
def _cuda_for(index: int) -> Any:
    try:
        module = importlib.import_module("ddkern._cuda")
    except ImportError:
        return None
    if not hasattr(module, "mmd_pull"):
        return None
    # Of a driver that is older than torch's own needs, the module sees no devices.
    devices = module.report()["devices"]
    able = index < len(devices) and devices[index]["compute_capability"] >= _LEAST_CAPABILITY
    return module if able else None


def dispatch(
    tensors: list[Tensor],
    arguments: tuple[Any, ...],
    *,
    on_cpu: Callable[..., Any],
    on_device: Callable[..., Any],
    in_torch: Callable[..., Any],
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16),
) -> Any:
    """Call the function that is for such tensors.

    Kernels take strided tensors of these dtypes. ``on_device`` gets the module of the device before
    the arguments; where neither it nor the CPU is meant, there is torch.
    """
    if all(t.dtype in dtypes and t.layout == torch.strided for t in tensors):
        module = module_for(tensors[0])
        if module is not None:
            return on_device(module, *arguments)
        if tensors[0].is_cpu:
            return on_cpu(*arguments)
    return in_torch(*arguments)


def addresses(tensors: list[Tensor], like: list[Tensor], name: str) -> list[int]:
    """Return where the values of tensors without gaps begin.

    Raises
    ------
    ValueError
        If there are not as many as in ``like``, or one is of another size, dtype or device.
    """
    if tensors is not like:
        dtype, device = like[0].dtype, like[0].device
        alike = [x.numel() for x in tensors] == [x.numel() for x in like]
        if not alike or any(x.dtype is not dtype or x.device != device for x in tensors):
            raise ValueError(f"{name} has other sizes, dtypes or devices than it must")
    return [x.data_ptr() for x in tensors]


def run(function: Callable[..., None], device: torch.device, **arguments: Any) -> None:
    """Call a function of the module with a device and torch's current stream there."""
    on_cuda = device.type == "cuda"
    stream = torch.cuda.current_stream(device).cuda_stream if on_cuda else 0
    try:
        function(device=device.index or 0, stream=stream, **arguments)
    except RuntimeError as error:
        raise CudaError(str(error)) from error


def n_threads() -> int:
    """Threads of a kernel on the CPU: never more than torch itself would take."""
    return min(int(_core.max_threads()), torch.get_num_threads())
