# SPDX-License-Identifier: Apache-2.0
"""In which numbers a model runs, and how many images at once. Importing this module needs torch."""

from __future__ import annotations

from typing import Any

import torch

from ddkern.backend import available_memory
from ddkern.checks import as_count, check_choice

__all__ = ["bytes_of_maps", "choose_batch_size", "choose_dtype", "free_bytes"]

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

# More images at once make nothing faster.
_MOST_IMAGES = 256

# The share of the free memory that a batch may take by an estimate that can be off by two.
_SHARE = 0.5


def choose_dtype(dtype: Any, device: torch.device) -> torch.dtype:
    """The type of this name; ``"auto"`` is float16 on a CUDA device and float32 elsewhere.

    Raises
    ------
    TypeError, ValueError
        If it is neither ``"auto"``, ``"float32"``, ``"float16"`` nor ``"bfloat16"``.
    """
    check_choice("dtype", dtype, ("auto", *_DTYPES))
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return _DTYPES[dtype]


def free_bytes(device: torch.device) -> int:
    """Memory of a device that tensors can still take, what torch holds unused included."""
    if device.type != "cuda":
        return available_memory()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + int(held)


def bytes_of_maps(values: int, count: int, dtype: torch.dtype) -> int:
    """Memory of ``count`` maps of ``values`` values each."""
    return values * count * torch.empty(0, dtype=dtype).element_size()


def choose_batch_size(batch_size: Any, bytes_per_image: int, free: int) -> int:
    """``batch_size``; None is as many images as half of the free memory holds by an estimate.

    It is then a power of two from 1 to 256, so that a little more or less free memory makes no
    difference.
    """
    if batch_size is not None:
        return as_count("batch_size", batch_size)
    fitting = int(_SHARE * free) // max(1, bytes_per_image)
    most = min(max(1, fitting), _MOST_IMAGES)
    return 1 << (most.bit_length() - 1)
