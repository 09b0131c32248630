# SPDX-License-Identifier: Apache-2.0
"""The quantizer on a device: what the extension module for it takes, out of torch tensors.

The module gets addresses, never objects: rows and result arrays of torch, workspace from torch's
allocator, and the number of torch's current stream, in whose order everything runs. Results that
have one entry a group come back in host memory.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddkern.arrays import HostArray, device_of, to_host
from ddkern.backend import cuda_status
from ddkern.errors import CudaError, UnsupportedError
from ddkern.kmeans import options
from ddkern.kmeans.device_arrays import DeviceArray, lack_of_memory, to_device_array
from ddkern.progress import RecordProgress
from ddkern.typing import ArrayLike

if TYPE_CHECKING:
    from ddkern.kmeans.problem import Problem

__all__ = ["assign", "fit", "parse_device", "see", "seed", "use_module", "workspace_bytes"]

_ALIGNMENT = 256  # of the workspace, in bytes


class _Target(NamedTuple):
    """Which tensors are worked on here, and by which module; None means ``ddkern._cuda``."""

    device_type: str
    module: Any


_target = _Target("cuda", None)


@contextlib.contextmanager
def use_module(module: Any, device_type: str = "cpu") -> Iterator[None]:
    """Work on all torch tensors on devices of a type with ``module``, for tests without a GPU.

    Parameters
    ----------
    module : object
        With the functions ``fit``, ``seed`` and ``assign`` of ``ddkern._cuda``.
    device_type : str
        What torch calls the type. Arrays of other libraries go where they went before.
    """
    global _target  # noqa: PLW0603
    before = _target
    _target = _Target(device_type, module)
    try:
        yield
    finally:
        _target = before


def see(x: ArrayLike, name: str) -> HostArray | DeviceArray:
    """See an array in place, in whichever memory it lies.

    Raises
    ------
    UnsupportedError
        If it lies in CUDA memory and this build or machine cannot work on it there.
    """
    if isinstance(x, np.ndarray):
        return to_host(x, name)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        here = x.device.type == _target.device_type
    else:
        here = (device_of(x) or "").startswith("cuda")
    if not here:
        return to_host(x, name)
    if _target.module is None:
        _require_cuda(name, device_of(x))
    return to_device_array(x, name)


def parse_device(device: Any, x: HostArray | DeviceArray) -> list[Any]:
    """The devices that ``x`` is to be brought to; none where it is worked on where it lies.

    Raises
    ------
    TypeError, ValueError
        If ``device`` is not one of torch's devices, a list of different ones, or ``"all"``, or if
        ``x`` lies on another one.
    UnsupportedError
        If this build or machine cannot work on it.
    """
    if device is None:
        return []
    if isinstance(x, HostArray) and str(device) == "cpu" != _target.device_type:
        return []
    named = list(device) if isinstance(device, (list, tuple)) else [device]
    torch = _torch_for(device)
    if named == ["all"]:
        named = _every_device(device)
    places = [_parse_place(torch, one, device) for one in named]
    if not places or len(set(places)) < len(places):
        raise ValueError(f"device={device!r}; a list must name one device or more, each once")
    if isinstance(x, DeviceArray):
        own = x.tensor.device
        if places != [own]:
            raise ValueError(
                f"device={device!r}, but x lies on {own}; only rows in CPU memory are brought to "
                "other devices: leave device out, or pass x.cpu()"
            )
        return []
    return places


def fit(
    problem: Problem, *, max_memory: Any, init_centroids: Any, k: NDArray[np.int64], **rest: Any
) -> dict[str, Any]:
    """``_core.fit``, with centroids, mass and assignment as tensors on the device of ``problem``.

    ``init_centroids`` is a tensor of the points' type there, or None.
    """
    x = _device_array(problem)
    n_centroids = int(k.sum())
    with _call(problem, max_memory, rest["progress"]) as run:
        tensors = {
            "centroids": x.empty((n_centroids, problem.n_features), x.point_dtype),
            "mass": x.empty((n_centroids,), np.float64),
            "assignment": x.empty((problem.n_rows,), np.int64),
        }
        addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        start = 0 if init_centroids is None else init_centroids.data_ptr()
        fitted = run("fit", **{**rest, **addresses}, k=k, init_centroids=start)
    return {**fitted, **tensors}


def seed(problem: Problem, *, max_memory: Any, k: NDArray[np.int64], **rest: Any) -> dict[str, Any]:
    """``_core.seed``, with the rows as a tensor on the device of ``problem``."""
    with _call(problem, max_memory, rest["progress"]) as run:
        rows = _device_array(problem).empty((int(k.sum()),), np.int64)
        seeded = run("seed", **{**rest, "rows": rows.data_ptr()}, k=k)
    return {**seeded, "rows": rows}


def assign(
    problem: Problem,
    *,
    max_memory: Any,
    centroids: Any,
    n_nearest: int,
    return_distance: bool,
    **rest: Any,
) -> dict[str, Any]:
    """``_core.assign``, from and to tensors on the device of ``problem``."""
    x = _device_array(problem)
    shape = (problem.n_rows, n_nearest)
    with _call(problem, max_memory, rest["progress"]) as run:
        assignment = x.empty(shape, np.int64)
        distance = x.empty(shape, np.float64) if return_distance else None
        run(
            "assign",
            **rest,
            centroids=centroids.data_ptr(),
            n_nearest=n_nearest,
            return_distance=return_distance,
            assignment=assignment.data_ptr(),
            distance=0 if distance is None else distance.data_ptr(),
        )
    return {"assignment": assignment, "distance": distance}


def workspace_bytes(device: Any, max_memory: Any) -> int:
    """``max_memory`` as an int; None is three quarters of what is free on a device of torch.

    Memory that torch holds without using it is free: the workspace comes out of it first.
    """
    if max_memory is not None or device.type != "cuda":
        return options.workspace_bytes(max_memory)
    cuda = sys.modules["torch"].cuda
    held = cuda.memory_reserved(device) - cuda.memory_allocated(device)
    return max(1, (int(cuda.mem_get_info(device)[0]) + int(held)) * 3 // 4)


@contextlib.contextmanager
def _call(
    problem: Problem, max_memory: Any, progress: RecordProgress | None
) -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that calls the module with what all its functions take, and what it is given.

    Rows that had to be converted, and the workspace, live until the end of the ``with`` statement.
    """
    x = _device_array(problem)
    torch = sys.modules["torch"]
    device = x.tensor.device
    budget = workspace_bytes(device, max_memory)
    on_cuda = device.type == "cuda"
    workspace: list[Any] = []
    raised_by_caller: list[BaseException] = []

    def allocate(n_bytes: int) -> int:
        with lack_of_memory():
            block = torch.empty(n_bytes + _ALIGNMENT - 1, dtype=torch.uint8, device=device)
        workspace.append(block)
        return -(-int(block.data_ptr()) // _ALIGNMENT) * _ALIGNMENT

    def report(*counts: Any) -> None:
        assert progress is not None  # noqa: S101
        try:
            progress(*counts)
        except BaseException as error:
            raised_by_caller.append(error)
            raise

    def run(function: str, **arguments: Any) -> dict[str, Any]:
        arguments["progress"] = None if progress is None else report
        try:
            answer: dict[str, Any] = getattr(_module(), function)(
                x=rows.data_ptr(),
                float64=x.point_dtype == np.float64,
                n_rows=problem.n_rows,
                n_features=problem.n_features,
                row_stride=rows.stride(0),
                order=problem.partition.order,
                offsets=problem.partition.offsets,
                max_memory=budget,
                device=device.index or 0,
                stream=torch.cuda.current_stream(device).cuda_stream if on_cuda else 0,
                allocate=allocate,
                **arguments,
            )
        except RuntimeError as error:
            if type(error) is not RuntimeError or error in raised_by_caller:
                raise
            raise CudaError(str(error)) from error
        return answer

    try:
        with lack_of_memory():
            _require_exact(problem, x)
            rows = x.rows(problem.n_rows)
            yield run
    finally:
        workspace.clear()


def _require_exact(problem: Problem, x: DeviceArray) -> None:
    inexact = x.inexact_rows(problem.n_rows)
    if inexact is None or not inexact.any():
        return
    order = problem.partition.order
    row = int(np.argmax(inexact) if order is None else order[np.argmax(inexact[order])])
    raise ValueError(
        f"x holds an integer beyond 2^53 in row {row}; 64-bit integers must be exact in float64"
    )


def _device_array(problem: Problem) -> DeviceArray:
    assert isinstance(problem.x, DeviceArray)  # noqa: S101
    return problem.x


def _module() -> Any:
    return importlib.import_module("ddkern._cuda") if _target.module is None else _target.module


def _torch_for(device: Any) -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UnsupportedError(
            f"device={device!r} takes torch, which cannot be imported ({error}): "
            "pip install 'ddkern[torch]'"
        ) from error


def _every_device(device: Any) -> list[str]:
    kind = _target.device_type
    _require_device(device)
    n = sys.modules["torch"].cuda.device_count() if kind == "cuda" else 1
    return [f"{kind}:{i}" for i in range(n)]


def _parse_place(torch: Any, one: Any, device: Any) -> Any:
    """One device of torch, with its number."""
    kind = _target.device_type
    rule = f"it must be '{kind}', '{kind}:0' and so on, a list of these, or 'all'"
    if not isinstance(one, (str, torch.device)):
        raise TypeError(f"device={device!r}; {rule}")
    try:
        place = torch.device(one)
    except RuntimeError as error:
        raise ValueError(f"device={device!r}; {rule}") from error
    if place.type != kind:
        raise ValueError(f"device={device!r}; {rule}")
    if kind != "cuda":
        return place
    _require_device(device)
    n = torch.cuda.device_count()
    place = torch.device(kind, torch.cuda.current_device() if place.index is None else place.index)
    if place.index >= n:
        raise ValueError(f"device={device!r}; there are {n} CUDA devices, numbered from 0")
    return place


def _require_device(device: Any) -> None:
    obstacle = "" if _target.module is not None else _obstacle()
    if obstacle:
        raise UnsupportedError(
            f"device={device!r}, but ddkern cannot work there: {obstacle} "
            "(ddkern.backend.cuda_status() tells more)"
        )


def _require_cuda(name: str, device: str | None) -> None:
    obstacle = _obstacle()
    if obstacle:
        raise UnsupportedError(
            f"{name} lies on {device}, but ddkern cannot work there: {obstacle} "
            f"(ddkern.backend.cuda_status() tells more); pass {name}.cpu() to use the CPU"
        )


@functools.cache
def _obstacle() -> str:
    """What keeps this process from using CUDA; empty if nothing does."""
    try:
        module = importlib.import_module("ddkern._cuda")
    except ImportError:
        return cuda_status()
    if not hasattr(module, "fit"):
        return f"this build's CUDA module has no quantizer; {cuda_status()}"
    found = module.report()
    return cuda_status() if found["error_name"] or not found["devices"] else ""
