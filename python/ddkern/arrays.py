# SPDX-License-Identifier: Apache-2.0
"""Arrays in from any library, results out in the same library, without copying the data.

An array that comes in becomes a :class:`HostArray`: a numpy view on the caller's memory and the
way back. numpy has no bfloat16, so such data travels as its 16-bit patterns with a flag.
Torch is recognised but never imported: a tensor can only exist where torch is loaded already.
What lies elsewhere than in CPU memory is recognised here and left to others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ddkern.typing import Array, ArrayLike

__all__ = ["DTYPE_RULE", "HostArray", "device_of", "to_host"]

# DLPack device types whose memory the CPU can read (dlpack.h): kDLCPU, kDLCUDAHost, kDLROCMHost.
_DLPACK_CPU_DEVICES = frozenset({1, 3, 11})
# kDLCUDA and kDLCUDAManaged.
_DLPACK_CUDA_DEVICES = frozenset({2, 13})

DTYPE_RULE = "supported are bool, 8- to 64-bit integers, float16, bfloat16, float32 and float64"


@dataclass(frozen=True, slots=True, eq=False)
class HostArray:
    """An array in CPU memory, seen through numpy, that remembers where it came from.

    Attributes
    ----------
    values : ndarray
        A view of the caller's memory, of any strides; ``uint16`` bit patterns for bfloat16.
    bfloat16 : bool
        Whether ``values`` holds the bit patterns of bfloat16 numbers.
    wrap : callable
        Turns a numpy result into an array of the caller's library, without a copy where that
        library allows it.
    """

    values: NDArray[Any]
    bfloat16: bool
    wrap: Callable[[NDArray[Any]], Array]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.values.shape

    @property
    def dtype_name(self) -> str:
        """Name of the element type, ``"bfloat16"`` included."""
        return "bfloat16" if self.bfloat16 else self.values.dtype.name

    @property
    def is_integer(self) -> bool:
        """Whether the elements are integers (bool is not)."""
        return not self.bfloat16 and self.values.dtype.kind in "iu"

    @property
    def point_dtype(self) -> np.dtype[Any]:
        """The floating-point type that holds every accepted value of this type exactly.

        float64 for float64 and for 32- and 64-bit integers (the latter up to 2**53 in magnitude),
        float32 for everything else. Centroids of such data are stored in this type.
        """
        dtype = self.values.dtype
        wide = not self.bfloat16 and (
            dtype == np.float64 or (dtype.kind in "iu" and dtype.itemsize >= 4)
        )
        return np.dtype(np.float64 if wide else np.float32)

    def select(self, index: Any) -> HostArray:
        """``self[index]`` as a HostArray; basic indices give views, index arrays give copies."""
        return HostArray(self.values[index], self.bfloat16, self.wrap)

    def as_dtype(self, dtype: DTypeLike) -> NDArray[Any]:
        """The values as a C-contiguous array of ``dtype``, rounded to nearest where they must be.

        Values beyond the range of ``dtype`` become infinite, without a warning: the caller checks.
        """
        if self.bfloat16:
            # The upper half of a float32 is its bfloat16.
            bits = self.values.astype(np.uint32, order="C")
            bits <<= 16
            return np.ascontiguousarray(bits.view(np.float32).astype(dtype, copy=False))
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(self.values, dtype=dtype, order="C")

    def largest_magnitude(self) -> int:
        """The largest magnitude among integers."""
        return max(abs(int(self.values.max())), abs(int(self.values.min())))

    # What follows is the numpy half of the operations that code for any device is written in.

    def like(self, values: NDArray[Any]) -> HostArray:
        """``values`` as an array that came from the same library."""
        return HostArray(values, False, self.wrap)

    def native(self, values: NDArray[Any]) -> NDArray[Any]:
        """A numpy array in the form that computations on this device take."""
        return values

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array for results, in the form that computations on this device take."""
        return np.empty(shape, dtype)

    def repeat(self, values: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[Any]:
        """``numpy.repeat``."""
        return np.repeat(values, counts)

    def wrap_all(self, parts: Sequence[NDArray[Any]]) -> tuple[Array, ...]:
        """Each of ``parts`` as an array of the caller's library."""
        return tuple(self.wrap(part) for part in parts)

    def narrowed(self, values: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
        """``values`` as ``dtype`` if that holds every one of them, as they are otherwise."""
        with np.errstate(over="ignore"):
            cast = values.astype(dtype, copy=False)
        return cast if bool(np.array_equal(cast, values)) else values

    def finite_rows(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """For every row of ``values`` (m, n_features) whether all of it is finite."""
        finite: NDArray[np.bool_] = np.isfinite(values).all(axis=1)
        return finite

    def beside(self, x: ArrayLike, name: str) -> HostArray:
        """Another array argument of the same call, which must lie in CPU memory too."""
        device = device_of(x)
        if device is not None:
            raise TypeError(
                f"{name} lies on {device} and x in CPU memory; pass {name}.cpu(), or x on {device}"
            )
        return to_host(x, name)


def to_host(x: ArrayLike, name: str) -> HostArray:
    """See an array of any supported library as a numpy array in place.

    Parameters
    ----------
    x : array_like
        numpy array, torch tensor on the CPU (detached from its graph if it has one), any object
        with ``__dlpack__`` whose memory the CPU can read, or anything ``numpy.asarray`` accepts.
    name : str
        What error messages call the argument.

    Returns
    -------
    HostArray

    Raises
    ------
    TypeError
        If the array lies on another device, has an unsupported dtype or byte order, or is sparse
        or masked. The message names the argument.
    ValueError
        If ``x`` is a nested sequence of uneven lengths.
    """
    device = device_of(x)
    if device is not None:
        raise TypeError(
            f"{name} lies on {device}, which the CPU does not read: "
            f"pass {name}.cpu() or an equivalent copy on the host"
        )
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        host = _from_torch(torch, x, name)
    elif isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array; masks are not supported: fill or drop the masked values, "
            "or give such rows a sample_weight of 0"
        )
    elif isinstance(x, np.ndarray):
        host = _from_numpy(np.asarray(x))
    elif hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        host = _from_dlpack(x, name)
    else:
        host = _from_array_like(x, name)
    _check_dtype(host, name)
    return host


def device_of(x: ArrayLike) -> str | None:
    """Where an array lies if the CPU does not read it there, such as ``"cuda:0"``; None if it does.

    Parameters
    ----------
    x : array_like
        Anything. An object without a device protocol lies in CPU memory.
    """
    if isinstance(x, np.ndarray):
        return None
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return None if x.device.type == "cpu" else str(x.device)
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        device_type, device_id = (int(number) for number in x.__dlpack_device__())
        if device_type in _DLPACK_CPU_DEVICES:
            return None
        if device_type in _DLPACK_CUDA_DEVICES:
            return f"cuda:{device_id}"
        return f"DLPack device ({device_type}, {device_id})"
    return "cuda" if hasattr(x, "__cuda_array_interface__") else None


def _identity(array: NDArray[Any]) -> Array:
    return array


def _from_numpy(
    array: NDArray[Any], wrap: Callable[[NDArray[Any]], Array] = _identity
) -> HostArray:
    # ml_dtypes registers bfloat16 with numpy under this name.
    if array.dtype.name == "bfloat16":
        return HostArray(array.view(np.uint16), True, wrap)
    return HostArray(array, False, wrap)


def _from_torch(torch: Any, tensor: Any, name: str) -> HostArray:
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} has layout {tensor.layout}; only dense (strided) tensors work")
    tensor = tensor.detach().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        bits = tensor.view(torch.int16).numpy().view(np.uint16)
        return HostArray(bits, True, torch.from_numpy)
    try:
        values = tensor.numpy()
    except (TypeError, RuntimeError) as error:
        # Types without a numpy counterpart: float8, quantized, subclasses that forbid access.
        raise TypeError(f"{name} has dtype {tensor.dtype}; {DTYPE_RULE} ({error})") from error
    return HostArray(values, False, torch.from_numpy)


def _from_dlpack(x: Any, name: str) -> HostArray:
    try:
        values: NDArray[Any] = np.from_dlpack(x)
    except (BufferError, RuntimeError) as error:
        # numpy takes neither bfloat16 nor, in older releases, read-only memory over DLPack; the
        # array protocol is the exporting library's own way to offer both.
        if not hasattr(x, "__array__"):
            raise TypeError(
                f"{name}, a {type(x).__name__}, cannot be exchanged with numpy by DLPack: {error}"
            ) from error
        values = np.asarray(x)
    return _from_numpy(values, _namespace_wrap(x))


def _namespace_wrap(x: Any) -> Callable[[NDArray[Any]], Array]:
    if not hasattr(x, "__array_namespace__"):
        return _identity
    namespace = x.__array_namespace__()
    # from_dlpack is part of the standard since 2021.12; it shares memory where asarray may copy.
    name = "from_dlpack" if hasattr(namespace, "from_dlpack") else "asarray"
    wrap: Callable[[NDArray[Any]], Array] = getattr(namespace, name)
    return wrap


def _from_array_like(x: ArrayLike, name: str) -> HostArray:
    if hasattr(x, "toarray"):
        raise TypeError(f"{name} is sparse ({type(x).__name__}); pass a dense array")
    try:
        return _from_numpy(np.asarray(x))
    except ValueError as error:
        raise ValueError(f"{name} does not form an array: {error}") from error


def _check_dtype(host: HostArray, name: str) -> None:
    dtype = host.values.dtype
    if not dtype.isnative:
        raise TypeError(
            f"{name} has dtype {dtype.str!r}, which is not in this machine's byte order; convert "
            f"it with {name}.astype({name}.dtype.newbyteorder('='))"
        )
    if not (dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize in (2, 4, 8))):
        raise TypeError(f"{name} has dtype {dtype.name}; {DTYPE_RULE}")
