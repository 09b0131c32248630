# SPDX-License-Identifier: Apache-2.0
"""Checks of scalar arguments. Every message names the argument, its value and the rule."""

from __future__ import annotations

import functools
import math
import operator
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddkern.backend import default_max_memory, max_threads

__all__ = [
    "MOST_RESTARTS",
    "SEED_LIMIT",
    "WORK_FOR_A_TEAM",
    "as_count",
    "as_integer",
    "as_n_threads",
    "as_seed",
    "as_tol",
    "check_choice",
    "draw_seed",
    "workspace_bytes",
]

SEED_LIMIT = 1 << 64

_SECONDS_BETWEEN_LOOKS = 0.5  # at how much memory is free
# The counter of the draws has 16 bits for the restart (docs/numerics.md, section 7).
MOST_RESTARTS = (1 << 16) - 1
# Multiply-adds of one pass below which waking threads costs more than it saves: one and two threads
# took the same time between two and six million (measured).
WORK_FOR_A_TEAM = 2_000_000


def as_integer(name: str, value: Any, rule: str) -> int:
    """``value`` as an int. bool is refused: it passes for an integer and is always a mistake."""
    message = f"{name}={value!r} is a {type(value).__name__}; {rule}"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(message)
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(message) from None


def as_count(name: str, value: Any, *, at_least: int = 1, at_most: int | None = None) -> int:
    """``value`` as an int that is not less than ``at_least`` and not more than ``at_most``."""
    rule = f"it must be an integer of at least {at_least}"
    if at_most is not None:
        rule += f" and at most {at_most}"
    count = as_integer(name, value, rule)
    if count < at_least or (at_most is not None and count > at_most):
        raise ValueError(f"{name}={count}; {rule}")
    return count


def as_tol(value: Any) -> float:
    """``tol`` as a float: finite and not negative."""
    rule = "it must be a finite number of at least 0"
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise TypeError(f"tol={value!r} is a {type(value).__name__}; {rule}")
    try:
        tol = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"tol={value!r} is a {type(value).__name__}; {rule}") from None
    if not (math.isfinite(tol) and tol >= 0):
        raise ValueError(f"tol={tol}; {rule}")
    return tol


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """``value`` if it is one of ``choices``."""
    allowed = ", ".join(map(repr, choices))
    if not isinstance(value, str):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be one of {allowed}")
    if value not in choices:
        raise ValueError(f"{name}={value!r}; it must be one of {allowed}")
    return value


def draw_seed() -> int:
    """A seed from the operating system, for ``random_state=None``."""
    return int.from_bytes(os.urandom(8), "little")


def as_seed(name: str, value: Any) -> int:
    """``value`` as an unsigned 64-bit integer."""
    rule = "a seed must be an integer with 0 <= seed < 2**64"
    seed = as_integer(name, value, rule)
    if not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"{name}={seed}; {rule}")
    return seed


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


# Asking the system takes longer than a small problem does, and what is free changes slowly.
@functools.lru_cache(maxsize=1)
def _default_workspace(period: int) -> int:
    return default_max_memory()
