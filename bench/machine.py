# SPDX-License-Identifier: Apache-2.0
"""The machine: what it is, and the roofs that were measured on it."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

# The parts of the instruction set that some implementation here has code for.
_FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "asimd",
    "bf16",
    "sve",
)


def describe() -> dict[str, Any]:
    """Return CPU model, instruction sets, cores, memory and system, as far as the system tells."""
    cpuinfo = _read(Path("/proc/cpuinfo"))
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields[name.strip()] = value.strip()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    meminfo = _read(Path("/proc/meminfo")).split()
    memory = int(meminfo[1]) // 2**20 if len(meminfo) > 1 else None
    return {
        "cpu": _cpu_name(fields),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "cache": _caches(),
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def _cpu_name(fields: dict[str, str]) -> str:
    name = fields.get("model name") or platform.processor() or platform.machine()
    # Virtual machines often give the brand alone; family and model still say which core it is.
    if "cpu family" in fields and "model" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name


def _caches() -> dict[str, str]:
    caches = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = _read(index / "type").strip()
        level = _read(index / "level").strip()
        if kind != "Instruction" and level:
            caches[f"L{level}"] = _read(index / "size").strip()
    return caches


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def probe(threads: int) -> dict[str, Any]:
    """Measure the peaks with ``threads`` threads.

    Returns
    -------
    dict
        ``source`` (what measured), ``fma_gflops`` (float32 fused multiply-add, two operations
        each), ``bf16_gflops`` and ``byte_gops`` (dot products of bfloat16 and of bytes; None
        where the CPU has none) and ``copy_gbps`` (bytes read plus bytes written by a copy larger
        than the caches).
    """
    native: Callable[[int], dict[str, float]] | None = None
    with contextlib.suppress(ImportError):
        from ddkern import _core

        native = getattr(_core, "probe_peak", None)
    if native is None:
        return _stand_in(threads)
    measured = native(threads)
    return {
        "source": "ddkern's probes",
        "fma_gflops": measured["fma_gflops"],
        "bf16_gflops": measured["bf16_gflops"] or None,
        "byte_gops": measured["byte_gops"] or None,
        "copy_gbps": measured["copy_gbps"],
    }


def _stand_in(threads: int) -> dict[str, Any]:
    size = 2048
    copy = _copy_gbps()
    try:
        import torch
    except ImportError:
        a = np.ones((size, size), dtype=np.float32)
        fma = 2.0 * size**3 / _fastest(lambda: a @ a) / 1e9
        return {
            "source": "numpy matmul and copy, standing in for probes",
            "fma_gflops": fma,
            "bf16_gflops": None,
            "byte_gops": None,
            "copy_gbps": copy,
        }
    torch.set_num_threads(threads)
    peaks = {}
    for dtype in (torch.float32, torch.bfloat16):
        b = torch.ones(size, size, dtype=dtype)
        peaks[dtype] = 2.0 * size**3 / _fastest(lambda b=b: b @ b) / 1e9  # type: ignore[misc]
    has_bf16 = {"avx512_bf16", "amx_bf16", "bf16"} & set(describe()["flags"])
    return {
        "source": "torch matmul and numpy copy, standing in for probes",
        "fma_gflops": peaks[torch.float32],
        "bf16_gflops": peaks[torch.bfloat16] if has_bf16 else None,
        "byte_gops": None,
        "copy_gbps": copy,
    }


def _copy_gbps() -> float:
    source = np.ones(1 << 25, dtype=np.float64)
    target = np.empty_like(source)
    return 2.0 * source.nbytes / _fastest(lambda: np.copyto(target, source)) / 1e9


def _fastest(function: Callable[[], object], repeats: int = 5) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best
