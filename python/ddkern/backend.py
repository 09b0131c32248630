# SPDX-License-Identifier: Apache-2.0
"""What this build and this machine offer: instruction sets, threads, memory, CUDA."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from ddkern import __version__, _core

__all__ = [
    "available_memory",
    "config",
    "cuda_status",
    "default_max_memory",
    "max_threads",
    "show_config",
]

# Assumed free where the operating system does not tell.
_FALLBACK_AVAILABLE = 4 << 30

# CUDA 13 runs on driver branches from this number on.
_FIRST_DRIVER_FOR_CUDA_13 = 580


def max_threads() -> int:
    """Threads that ``n_threads=None`` means at this moment, unless the work is too little for them.

    OpenMP's current limit (``OMP_NUM_THREADS``, threadpoolctl, CPU affinity); 1 where the build
    has no OpenMP and in a forked child, where an OpenMP pool of the parent cannot be used.
    """
    return int(_core.max_threads())


def default_max_memory() -> int:
    """Bytes of workspace that ``max_memory=None`` allows: a quarter of :func:`available_memory`."""
    return max(1, available_memory() // 4)


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process can still allocate without swapping or being refused.

    The least of what the kernel calls available, what every memory cgroup above the process leaves
    (file cache that the kernel can drop counts as free), and what the limits on address space and
    on private memory leave. 4 GiB where none of them is known.

    Parameters
    ----------
    proc, cgroup : Path
        Where procfs and the cgroup hierarchy are mounted.
    """
    bounds = [
        *_kernel_available(proc / "meminfo"),
        *_cgroup_v2_left(proc / "self" / "cgroup", cgroup),
        *_cgroup_v1_left(proc / "self" / "cgroup", cgroup / "memory"),
        *_rlimits_left(proc / "self" / "status"),
    ]
    return max(0, min(bounds, default=_FALLBACK_AVAILABLE))


def _read_text(path: Path) -> str:
    """The content of a system file; empty where it is absent or hidden from this process."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _read_kib_field(text: str, field: str) -> list[int]:
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return [int(line.split()[1]) * 1024]
    return []


def _kernel_available(meminfo: Path) -> list[int]:
    return _read_kib_field(_read_text(meminfo), "MemAvailable")


def _cgroup_left(directory: Path, limit: str, usage: str, reclaimable: str) -> list[int]:
    limit_text = _read_text(directory / limit).strip()
    usage_text = _read_text(directory / usage).strip()
    if not (limit_text.isdigit() and usage_text.isdigit()):  # "max" means no limit
        return []
    droppable = 0
    for line in _read_text(directory / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == reclaimable:
            droppable = int(value)
    return [int(limit_text) - int(usage_text) + droppable]


def _cgroup_paths(membership: Path, controller: str) -> list[str]:
    """Relative path of the process in one hierarchy (``""`` is the unified one), with ancestors.

    A container usually sees its own cgroup as the root, under a path that does not exist there;
    the root is therefore always among the answers.
    """
    for line in _read_text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            parts = [part for part in path.split("/") if part not in ("", "..")]
            return ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
    return []


def _cgroup_v2_left(membership: Path, root: Path) -> list[int]:
    return [
        left
        for path in _cgroup_paths(membership, "")
        for left in _cgroup_left(root / path, "memory.max", "memory.current", "inactive_file")
    ]


def _cgroup_v1_left(membership: Path, root: Path) -> list[int]:
    return [
        left
        for path in _cgroup_paths(membership, "memory")
        for left in _cgroup_left(
            root / path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        )
    ]


def _rlimits_left(status: Path) -> list[int]:
    if importlib.util.find_spec("resource") is None:  # not a POSIX system
        return []
    import resource

    text = _read_text(status)
    left = []
    for limit, field in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            left += [soft - used for used in _read_kib_field(text, field)]
    return left


def cuda_status() -> str:
    """The state of CUDA in words.

    Returns
    -------
    str
        ``"built without CUDA"``, ``"no NVIDIA driver"``, ``"driver too old for CUDA 13 (...)"``,
        ``"no device"``, the error that the CUDA runtime reports, or a list of the devices.
    """
    if importlib.util.find_spec("ddkern._cuda") is None:
        return "built without CUDA"
    try:
        cuda = importlib.import_module("ddkern._cuda")
    except ImportError as error:
        return f"built with CUDA, but the module cannot be loaded: {error}"
    return _describe_cuda(cuda.report(), _installed_driver())


def _installed_driver(module_version: Path = Path("/sys/module/nvidia/version")) -> str:
    return _read_text(module_version).strip()


def _describe_cuda(report: dict[str, Any], driver_name: str) -> str:
    driver, runtime = int(report["driver_version"]), int(report["runtime_version"])
    if driver == 0:
        return "no NVIDIA driver"
    # CUDA promises that a driver runs every minor release of its own major version.
    if driver // 1000 < runtime // 1000:
        found = driver_name or f"a driver for CUDA {_cuda_version(driver)}"
        return (
            f"driver too old for CUDA {runtime // 1000} "
            f"(found {found}, needs {_FIRST_DRIVER_FOR_CUDA_13} or newer)"
        )
    devices = report["devices"]
    if not devices and report["error_name"] in ("", "cudaErrorNoDevice"):
        return "no device"
    if report["error_name"]:
        return f"CUDA runtime error {report['error_name']}"
    described = ", ".join(
        "{name} (compute capability {major}.{minor}, {memory:.0f} GiB)".format(
            name=device["name"],
            major=device["compute_capability"][0],
            minor=device["compute_capability"][1],
            memory=device["total_memory"] / (1 << 30),
        )
        for device in devices
    )
    return f"CUDA {_cuda_version(runtime)}, driver for CUDA {_cuda_version(driver)}; {described}"


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def config() -> dict[str, Any]:
    """Everything :func:`show_config` prints, as a dictionary that ``json`` can write.

    Returns
    -------
    dict
        Keys ``ddkern``, ``python``, ``numpy``, ``platform``, ``torch`` (None where it is not
        installed; it is not imported to find out), ``isa`` (``available``, ``active``, ``forced``,
        ``error``, ``cpu_features``), ``threads`` (``max``, ``openmp``, ``OMP_NUM_THREADS``),
        ``default_max_memory`` in bytes, and ``cuda``.
    """
    import platform

    try:
        active, isa_error = _core.isa_active(), None
    except ValueError as error:  # DDKERN_ISA names a level that is unknown or not available
        active, isa_error = None, str(error)
    return {
        "ddkern": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "numpy": np.__version__,
        "platform": platform.platform(),
        "torch": _installed_version("torch"),
        "isa": {
            "available": list(_core.isa_available()),
            "active": active,
            "forced": os.environ.get("DDKERN_ISA"),
            "error": isa_error,
            "cpu_features": dict(_core.cpu_features()),
        },
        "threads": {
            "max": max_threads(),
            "openmp": bool(_core.has_openmp),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "default_max_memory": default_max_memory(),
        "cuda": cuda_status(),
    }


def _installed_version(distribution: str) -> str | None:
    # Not at the top: it takes longer to import than all of ddkern.
    import importlib.metadata

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def show_config(file: IO[str] | None = None) -> None:
    """Print version, instruction sets, threads, memory and CUDA state.

    Parameters
    ----------
    file : text file, optional
        Where to print; standard output by default.
    """
    print(_format_config(config()), file=sys.stdout if file is None else file)


def _format_config(info: dict[str, Any]) -> str:
    isa, threads = info["isa"], info["threads"]
    features = [name for name, present in isa["cpu_features"].items() if present]
    openmp = "OpenMP" if threads["openmp"] else "built without OpenMP"
    lines = {
        "ddkern": info["ddkern"],
        "python": info["python"],
        "numpy": info["numpy"],
        "torch": info["torch"] or "not installed",
        "platform": info["platform"],
        "CPU features": " ".join(features) or "none known",
        "ISA available": " ".join(isa["available"]),
        "ISA in use": isa["active"] or f"none: {isa['error']}",
        "DDKERN_ISA": _or_unset(isa["forced"]),
        "threads": f"{threads['max']} ({openmp})",
        "OMP_NUM_THREADS": _or_unset(threads["OMP_NUM_THREADS"]),
        "max_memory": f"{info['default_max_memory'] / (1 << 30):.2f} GiB by default",
        "CUDA": info["cuda"],
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def _or_unset(value: str | None) -> str:
    return "not set" if value is None else value
