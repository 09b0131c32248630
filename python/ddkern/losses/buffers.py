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

# Whether threads share one lock, without which references are counted apart.
_COUNTS_ARE_EXACT = bool(getattr(sys, "_is_gil_enabled", lambda: True)())

_lock = threading.Lock()
_arrays: list[NDArray[Any]] = []  # the last one used last

# References to an array that a list and a variable hold, counted in this way.
_example = [np.empty(0)]
_held = _example[0]
_ALONE = sys.getrefcount(_held)

# One object each, to be told apart by identity; bfloat16 is bits.
_NUMPY_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.bfloat16: np.dtype(np.int16),
}


def empty_like(tensor: Tensor) -> Tensor:
    """Return a new tensor on the CPU, dense, of this shape and dtype, for a kernel to fill."""
    if tensor.numel() * tensor.element_size() < _LEAST_BYTES:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    with _lock:
        # A tensor holds a reference to its array, whatever else holds the tensor.
        memory = torch.from_numpy(_take(tensor.shape, _NUMPY_DTYPES[tensor.dtype]))
    return memory if memory.dtype == tensor.dtype else memory.view(tensor.dtype)


def _take(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    for index in reversed(range(len(_arrays))):
        array = _arrays[index]
        if array.shape == shape and array.dtype is dtype and sys.getrefcount(array) == _ALONE:
            _arrays.append(_arrays.pop(index))
            return array
    # numpy asks for huge pages where an array is large.
    array = np.empty(shape, dtype)
    if array.nbytes <= _KEPT_BYTES and _COUNTS_ARE_EXACT:
        _arrays.append(array)
        while sum(kept.nbytes for kept in _arrays) > _KEPT_BYTES:
            del _arrays[0]
    return array
