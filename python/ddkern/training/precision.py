# SPDX-License-Identifier: Apache-2.0
"""Where a network is trained, and in which numbers."""

from __future__ import annotations

import os
from typing import Any, Literal, TypeAlias

import torch

from ddkern.checks import check_choice

__all__ = ["PRECISIONS", "Precision", "autocast", "choose_device", "choose_precision"]

Precision: TypeAlias = Literal["float32", "bfloat16"]
PRECISIONS = ("float32", "bfloat16")


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of this name; ``"auto"`` is a CUDA device, or the CPU without one.

    It is the first one, or that of the number that ``torchrun`` gives to each process of a machine
    (``LOCAL_RANK``), counted around where there are more processes than devices.

    Raises
    ------
    ValueError
        If torch does not know the name, or cannot use the device.
    """
    if isinstance(device, str) and device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        rank = os.environ.get("LOCAL_RANK", "")
        if not rank.isdecimal():
            return torch.device("cuda")
        return torch.device("cuda", int(rank) % torch.cuda.device_count())
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={str(device)!r} cannot be used: {reason}") from error
    return chosen


def choose_precision(precision: str, device: torch.device) -> Precision:
    """``precision``, or for ``"auto"`` bfloat16 where the device multiplies it natively.

    In bfloat16, convolutions and linear layers take rounded inputs and add in float32
    (``torch.autocast``); weights, their updates, losses and statistics of norms stay in float32.

    Raises
    ------
    TypeError, ValueError
        If it is neither ``"auto"``, ``"float32"`` nor ``"bfloat16"``.
    """
    check_choice("precision", precision, ("auto", *PRECISIONS))
    if precision == "auto":
        return "bfloat16" if _is_native(device) else "float32"
    return "bfloat16" if precision == "bfloat16" else "float32"


def autocast(precision: Precision, device: torch.device) -> Any:
    """The context in which a network of this precision runs forward."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _is_native(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and supported is not None and bool(supported())
