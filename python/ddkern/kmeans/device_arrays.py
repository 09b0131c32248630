# SPDX-License-Identifier: Apache-2.0
"""Arrays in device memory, seen through torch, and results in the library that they came from.

A :class:`DeviceArray` is to a torch tensor what :class:`ddkern.arrays.HostArray` is to a numpy
array, and offers the same operations. torch allocates, converts and indexes on the device; nothing
of it is imported before such an array turns up.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ddkern.arrays import DTYPE_RULE, HostArray, device_of, to_host
from ddkern.typing import Array, ArrayLike

__all__ = [
    "DeviceArray",
    "ascending_runs",
    "fetch",
    "lack_of_memory",
    "to_device_array",
    "torch_dtype",
]

# float64 holds all integers up to here.
_LARGEST_EXACT = 1 << 53

_DTYPES = frozenset(
    {"bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"}
    | {"float16", "bfloat16", "float32", "float64"}
)
_WIDE_DTYPES = frozenset({"uint32", "int32", "uint64", "int64", "float64"})


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """An array in device memory that remembers where it came from.

    Attributes
    ----------
    tensor : torch.Tensor
        A view of the caller's memory, of any strides, outside any graph.
    export : callable
        Turns a tensor into an array of the caller's library, without a copy.
    """

    tensor: Any
    export: Callable[[Any], Array]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.tensor.shape)

    @property
    def dtype_name(self) -> str:
        """Name of the element type, ``"bfloat16"`` included."""
        return _name_of(self.tensor.dtype)

    @property
    def is_integer(self) -> bool:
        """Whether the elements are integers (bool is not)."""
        return "int" in self.dtype_name

    @property
    def point_dtype(self) -> np.dtype[Any]:
        """As :attr:`ddkern.arrays.HostArray.point_dtype`."""
        return np.dtype(np.float64 if self.dtype_name in _WIDE_DTYPES else np.float32)

    def select(self, index: Any) -> DeviceArray:
        """``self[index]`` as a DeviceArray; basic indices give views, index tensors give copies."""
        # torch cannot gather unsigned integers of more than 8 bits.
        as_signed = _signed(self.tensor)
        return DeviceArray(as_signed[index].view(self.tensor.dtype), self.export)

    def as_dtype(self, dtype: DTypeLike) -> Any:
        """The values as a C-contiguous tensor of ``dtype``, rounded to nearest where they must be.

        Values beyond the range of ``dtype`` become infinite: the caller checks.
        """
        return self.tensor.to(torch_dtype(dtype)).contiguous()

    def largest_magnitude(self) -> int:
        """The largest magnitude among integers."""
        signed = _signed(self.tensor)
        if signed.dtype != self.tensor.dtype:
            beyond = signed[signed < 0]
            if len(beyond):
                return int(beyond.max()) + (1 << 8 * int(signed.element_size()))
        return max(abs(int(signed.max())), abs(int(signed.min())))

    def like(self, values: Any) -> DeviceArray:
        """``values`` as an array that came from the same library."""
        return DeviceArray(values, self.export)

    def native(self, values: NDArray[Any]) -> Any:
        """A numpy array as a tensor on this device."""
        torch = sys.modules["torch"]
        return torch.from_numpy(np.require(values, requirements=["C", "W"])).to(self.tensor.device)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """A tensor for results on this device."""
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=torch_dtype(dtype), device=self.tensor.device)

    def repeat(self, values: NDArray[Any], counts: NDArray[np.int64]) -> Any:
        """``numpy.repeat``, as a tensor on this device."""
        return self.native(values).repeat_interleave(
            self.native(counts), output_size=int(counts.sum())
        )

    def wrap(self, values: Any) -> Array:
        """A tensor on this device, or a numpy array, as an array of the caller's library here."""
        return self.export(self.native(values) if isinstance(values, np.ndarray) else values)

    def wrap_all(self, parts: Sequence[NDArray[Any]]) -> tuple[Array, ...]:
        """Each of ``parts`` as an array of the caller's library, copied here all at once."""
        whole = self.native(np.concatenate(parts))
        copies: tuple[Any, ...] = whole.split([len(part) for part in parts])
        return copies if self.export is _identity else tuple(map(self.export, copies))

    def narrowed(self, values: Any, dtype: DTypeLike) -> Any:
        """``values`` as ``dtype`` if that holds every one of them, as they are otherwise."""
        cast = values.to(torch_dtype(dtype))
        return cast if bool((cast.to(values.dtype) == values).all()) else values

    def finite_rows(self, values: Any) -> NDArray[np.bool_]:
        """For every row of ``values`` (m, n_features) whether all of it is finite."""
        finite: NDArray[np.bool_] = values.isfinite().all(dim=1).cpu().numpy()
        return finite

    def beside(self, x: ArrayLike, name: str) -> DeviceArray:
        """Another array argument of the same call, copied here if it lies in CPU memory."""
        if device_of(x) is not None:
            other = to_device_array(x, name)
            if other.tensor.device != self.tensor.device:
                raise TypeError(
                    f"{name} lies on {other.tensor.device} and x on {self.tensor.device}; "
                    "both must lie on the same device, or the former in CPU memory"
                )
            return other
        host = to_host(x, name)
        values = self.native(host.values.view(np.int16) if host.bfloat16 else host.values)
        return self.like(values.view(torch_dtype("bfloat16")) if host.bfloat16 else values)

    def rows(self, n_rows: int) -> Any:
        """The values as a tensor (n_rows, n_features) of the points' type, features side by side.

        In place wherever the strides and the type allow it.
        """
        values = self.tensor
        dtype = torch_dtype(self.point_dtype)
        if values.dtype != dtype:
            values = self.as_dtype(dtype)
        values = values.reshape(n_rows, -1)
        apart = values.shape[1] > 1 and values.stride(1) != 1
        return values.contiguous() if apart else values

    def inexact_rows(self, n_rows: int) -> NDArray[np.bool_] | None:
        """For every row whether float64 may not hold it; None where the type rules that out."""
        if self.dtype_name not in ("int64", "uint64"):
            return None
        signed = _signed(self.tensor)
        least = 0 if self.dtype_name == "uint64" else -_LARGEST_EXACT  # beyond 2**63 is negative
        beyond = (signed > _LARGEST_EXACT) | (signed < least)
        inexact: NDArray[np.bool_] = beyond.reshape(n_rows, -1).any(dim=1).cpu().numpy()
        return inexact


def to_device_array(x: ArrayLike, name: str) -> DeviceArray:
    """See an array in device memory as a torch tensor in place.

    Parameters
    ----------
    x : array
        torch tensor (detached from its graph if it has one), or any object in CUDA memory with
        ``__dlpack__`` or ``__cuda_array_interface__``.
    name : str
        What error messages call the argument.

    Raises
    ------
    TypeError
        If torch is not installed or cannot see the array, or if the dtype or layout is unsupported.
    """
    torch = _import_torch(x, name)
    export: Callable[[Any], Array] = _identity
    tensor = x
    if not isinstance(x, torch.Tensor):
        tensor, export = _exchange(torch, x, name), _export_to(x)
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} has layout {tensor.layout}; only dense (strided) tensors work")
    if _name_of(tensor.dtype) not in _DTYPES:
        raise TypeError(f"{name} has dtype {_name_of(tensor.dtype)}; {DTYPE_RULE}")
    return DeviceArray(tensor.detach().resolve_neg(), export)


def fetch(x: ArrayLike, name: str) -> HostArray:
    """See an array in CPU memory in place, and bring one in CUDA memory to the host."""
    if (device_of(x) or "").startswith("cuda"):
        x = to_device_array(x, name).tensor.cpu()
    return to_host(x, name)


def ascending_runs(
    x: ArrayLike, name: str, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Distinct values and their counts, if ``x`` (length,) holds ascending integers in CUDA memory.

    None for everything else. Only the runs are brought to the host, not an id a row.
    """
    if not (device_of(x) or "").startswith("cuda"):
        return None
    seen = to_device_array(x, name)
    if not seen.is_integer or seen.dtype_name.startswith("u") or seen.shape != (length,):
        return None
    if not bool((seen.tensor[1:] >= seen.tensor[:-1]).all()):
        return None
    torch = sys.modules["torch"]
    values, counts = torch.unique_consecutive(seen.tensor, return_counts=True)
    return values.cpu().numpy().astype(np.int64), counts.cpu().numpy()


def torch_dtype(dtype: Any) -> Any:
    """What torch calls a type of numpy, or ``"bfloat16"``."""
    torch = sys.modules["torch"]
    if isinstance(dtype, torch.dtype):
        return dtype
    return getattr(torch, dtype if dtype == "bfloat16" else np.dtype(dtype).name)


@contextlib.contextmanager
def lack_of_memory() -> Iterator[None]:
    """Turn torch's error for a lack of device memory into ``MemoryError``."""
    torch = sys.modules["torch"]
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error


def _import_torch(x: ArrayLike, name: str) -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise TypeError(
            f"{name} lies on {device_of(x)}; ddkern works on arrays there through torch, which "
            f"cannot be imported ({error}): install torch, or pass a copy of {name} on the host"
        ) from error


def _exchange(torch: Any, x: Any, name: str) -> Any:
    try:
        if hasattr(x, "__dlpack__"):
            try:
                return torch.from_dlpack(x)
            except (BufferError, RuntimeError):
                # torch takes no managed memory over DLPack, but does over the older protocol.
                if not hasattr(x, "__cuda_array_interface__"):
                    raise
        return _over_the_older_protocol(torch, x)
    except (AssertionError, BufferError, RuntimeError, TypeError) as error:
        raise TypeError(
            f"{name}, a {type(x).__name__} on {device_of(x)}, cannot be exchanged with torch: "
            f"{error}"
        ) from error


def _over_the_older_protocol(torch: Any, x: Any) -> Any:
    tensor = torch.as_tensor(x, device=device_of(x))
    if tensor.is_cuda:
        # Unlike DLPack, it leaves it to us to wait for what still writes the array.
        torch.cuda.synchronize(tensor.device)
    return tensor


def _export_to(x: Any) -> Callable[[Any], Array]:
    if hasattr(x, "__array_namespace__"):
        namespace = x.__array_namespace__()
    else:
        namespace = sys.modules.get(type(x).__module__.partition(".")[0])
    export: Callable[[Any], Array] = getattr(namespace, "from_dlpack", _identity)
    return export


def _identity(tensor: Any) -> Array:
    return tensor


def _name_of(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _signed(tensor: Any) -> Any:
    """Unsigned integers of more than 8 bits as signed ones of the same bits; others as they are."""
    name = _name_of(tensor.dtype)
    return tensor.view(torch_dtype(name[1:])) if name in ("uint16", "uint32", "uint64") else tensor
