# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can run tests on a GPU."""

from __future__ import annotations

import importlib

import torch


def reason_to_skip(function: str) -> str:
    """Say why there is no GPU with this function of `ddkern._cuda`; empty where there is one."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        module = importlib.import_module("ddkern._cuda")
    except ImportError as error:
        return f"ddkern._cuda cannot be imported: {error}"
    return "" if hasattr(module, function) else f"ddkern._cuda has no {function}"
