# SPDX-License-Identifier: Apache-2.0
"""Time on a device, what the device is, and what it reaches."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import torch

import ddkern

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def timed(function: Callable[[], T], device: torch.device) -> tuple[T, float, float]:
    """Return what the call returns, its time by device events, and by the wall clock, in seconds.

    Both cover the whole call, with what it does on the host; without a GPU they are the same.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        result = function()
        wall = time.perf_counter() - start
        return result, wall, wall
    event: Any = torch.cuda.Event
    begin, end = event(enable_timing=True), event(enable_timing=True)
    torch.cuda.synchronize()
    start = time.perf_counter()
    begin.record()
    result = function()
    end.record()
    torch.cuda.synchronize()
    wall = time.perf_counter() - start
    return result, begin.elapsed_time(end) / 1e3, wall


def free_bytes(device: torch.device) -> int:
    """Return the memory that a run can still have."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    return 2**30


def ceilings(device: torch.device) -> dict[str, Any]:
    """Measure the copy bandwidth (read plus write) and the rate of a bfloat16 matrix product."""
    on_gpu = device.type == "cuda"
    values, size = (2**29, 8192) if on_gpu else (2**22, 256)
    source = torch.rand(values, device=device)
    target = torch.empty_like(source)
    copy = _median_time(lambda: target.copy_(source), device)
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    product = _median_time(lambda: a @ b, device)
    return {
        "copy_gbps": 2 * 4 * values / copy / 1e9,
        "copy_bytes": 4 * values,
        "bf16_tflops": 2 * size**3 / product / 1e12,
        "bf16_size": size,
    }


def _median_time(function: Callable[[], object], device: torch.device) -> float:
    for _ in range(3):
        function()
    return median(timed(function, device)[1] for _ in range(11))


def describe(device: torch.device) -> dict[str, Any]:
    """Return the device and the versions that compute."""
    facts: dict[str, Any] = {
        "device": device.type,
        "name": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "ddkern": ddkern.__version__,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "l2_mib": round(getattr(properties, "L2_cache_size", 0) / 2**20),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "driver": _driver(),
        }
    return facts


def _driver() -> str | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None
