# SPDX-License-Identifier: Apache-2.0
"""Checks of scalar arguments. Every message names the argument, its value and the rule."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "SEED_LIMIT",
    "as_count",
    "as_fraction",
    "as_image_size",
    "as_integer",
    "as_number",
    "as_seed",
    "check_choice",
]

SEED_LIMIT = 1 << 64


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


def as_number(
    name: str,
    value: Any,
    *,
    at_least: float,
    at_most: float = math.inf,
    rule: str | None = None,
) -> float:
    """``value`` as a finite float of the closed range, which ``rule`` may put into words."""
    if rule is None:
        rule = f"it must be a finite number of at least {at_least:g}"
        if at_most < math.inf:
            rule += f" and at most {at_most:g}"
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; {rule}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; {rule}") from None
    if not (math.isfinite(number) and at_least <= number <= at_most):
        raise ValueError(f"{name}={number}; {rule}")
    return number


def as_fraction(name: str, value: Any) -> float:
    """``value`` as a float in [0, 1]."""
    return as_number(name, value, at_least=0, at_most=1)


def as_image_size(value: Any, name: str = "image_size") -> tuple[int, int]:
    """``value``, one side or (height, width), as (height, width)."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if len(value) != 2:
            raise ValueError(f"{name}={value!r}; it must be a side or (height, width)")
        return as_count(f"{name}[0]", value[0]), as_count(f"{name}[1]", value[1])
    side = as_count(name, value)
    return side, side


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """``value`` if it is one of ``choices``."""
    allowed = ", ".join(map(repr, choices))
    if not isinstance(value, str):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be one of {allowed}")
    if value not in choices:
        raise ValueError(f"{name}={value!r}; it must be one of {allowed}")
    return value


def as_seed(name: str, value: Any) -> int:
    """``value`` as an unsigned 64-bit integer."""
    rule = "a seed must be an integer with 0 <= seed < 2**64"
    seed = as_integer(name, value, rule)
    if not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"{name}={seed}; {rule}")
    return seed
