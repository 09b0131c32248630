# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can run tests on a GPU, and running an operation there."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor


def reason_to_skip(function: str) -> str:
    """Say why there is no GPU with this function of `ddkern._cuda`; empty where there is one."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        module = importlib.import_module("ddkern._cuda")
    except ImportError as error:
        return f"ddkern._cuda cannot be imported: {error}"
    return "" if hasattr(module, function) else f"ddkern._cuda has no {function}"


def on_cuda(op: Any, arguments: list[Any]) -> Any:
    """Return what an operation makes of the arguments, with all tensors on the GPU."""
    return op(*map(to_device, arguments))


def to_device(value: Any) -> Any:
    """Return a tensor, or those of a list, on the GPU; whatever else it is, itself."""
    if isinstance(value, list):
        return [to_device(part) for part in value]
    if not isinstance(value, Tensor):
        return value
    # Views keep their place in memory, so that their alignment is the one that was asked for.
    if value.storage_offset():
        base = value.as_strided((value.storage_offset() + value.numel(),), (1,), 0)
        return base.cuda()[value.storage_offset() :].view(value.shape)
    return value.cuda()
