# SPDX-License-Identifier: Apache-2.0
"""Memory of results on the CPU, used again once nobody holds it.

The system clears a page before it gives it, and takes it back with the result: for a kernel that
reads and writes at the speed of memory that is as much time again. torch keeps the memory of CUDA
devices for this reason, but not that of the CPU.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["empty_like"]

_LEAST_BYTES = 1 << 16
# What may wait at most for a result of its size.
_KEPT_BYTES = 1 << 29

_lock = threading.Lock()
_arrays: list[NDArray[Any]] = []  # the last one used last

# References to an array that only a list holds, counted in this way.
_example = [np.empty(0)]
_ALONE = sys.getrefcount(_example[0])


def empty_like(tensor: Tensor) -> Tensor:
    """Return a new tensor on the CPU, dense, of this shape and dtype, for a kernel to fill."""
    n_bytes = tensor.numel() * tensor.element_size()
    if n_bytes < _LEAST_BYTES:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    with _lock:
        # A tensor holds a reference to its array, whatever else holds the tensor.
        memory = torch.from_numpy(_take(n_bytes))
    return memory.view(tensor.dtype).view(tensor.shape)


def _take(n_bytes: int) -> NDArray[Any]:
    for index in reversed(range(len(_arrays))):
        if _arrays[index].nbytes == n_bytes and sys.getrefcount(_arrays[index]) == _ALONE:
            array = _arrays.pop(index)
            break
    else:
        # numpy asks for huge pages where an array is large.
        array = np.empty(n_bytes, np.uint8)
    if n_bytes <= _KEPT_BYTES and _counts_are_exact():
        _arrays.append(array)
        while sum(kept.nbytes for kept in _arrays) > _KEPT_BYTES:
            del _arrays[0]
    return array


def _counts_are_exact() -> bool:
    """Whether threads share one lock, without which references are counted apart."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
