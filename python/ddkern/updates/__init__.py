# SPDX-License-Identifier: Apache-2.0
"""Steps of optimisers over flat parameters, one pass over memory each.

Each stands beside its plain form in torch, which also serves other devices and dtypes. Importing
this package needs torch: ``pip install ddkern[torch]``.
"""

from __future__ import annotations

from ddkern.updates.ascent import sam_ascent, sam_ascent_reference
from ddkern.updates.linear import axpy, axpy_reference, ema, ema_reference
from ddkern.updates.momentum import sgd_step, sgd_step_reference

__all__ = [
    "axpy",
    "axpy_reference",
    "ema",
    "ema_reference",
    "sam_ascent",
    "sam_ascent_reference",
    "sgd_step",
    "sgd_step_reference",
]
