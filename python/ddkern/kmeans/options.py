# SPDX-License-Identifier: Apache-2.0
"""Options of the quantizer that are more than a check: seeds, threads, memory."""

from __future__ import annotations

import functools
import os
import time
from typing import Any

from ddkern.backend import default_max_memory, max_threads
from ddkern.checks import as_count

__all__ = [
    "MOST_RESTARTS",
    "WORK_FOR_A_TEAM",
    "as_n_threads",
    "draw_seed",
    "workspace_bytes",
]

_SECONDS_BETWEEN_LOOKS = 0.5  # at how much memory is free
# The counter of the draws has 16 bits for the restart (docs/numerics.md, section 7).
MOST_RESTARTS = (1 << 16) - 1
# Multiply-adds of one pass below which waking threads costs more than it saves: one and two threads
# took the same time between two and six million (measured).
WORK_FOR_A_TEAM = 2_000_000


def draw_seed() -> int:
    """A seed from the operating system, for ``random_state=None``."""
    return int.from_bytes(os.urandom(8), "little")


def as_n_threads(value: Any, multiply_adds: int) -> int:
    """``n_threads`` as an int; None is what OpenMP's environment allows now, 1 for little work.

    ``multiply_adds`` is the work of comparing every row with every centroid of its group once.
    """
    if value is not None:
        return as_count("n_threads", value)
    return max_threads() if multiply_adds >= WORK_FOR_A_TEAM else 1


def workspace_bytes(value: Any) -> int:
    """``max_memory`` as an int; None is a quarter of the memory that is free now."""
    if value is not None:
        return as_count("max_memory", value)
    return _default_workspace(int(time.monotonic() / _SECONDS_BETWEEN_LOOKS))


@functools.lru_cache(maxsize=1)
def _default_workspace(period: int) -> int:
    """The default, looked up once a period, which is there for the cache alone.

    Asking the system takes longer than a small problem does, and what is free changes slowly.
    """
    del period
    return default_max_memory()
