# SPDX-License-Identifier: Apache-2.0
"""
CUDA part of ddkern; present where the build found a working nvcc.
"""

from __future__ import annotations

import typing

__all__: list[str] = ["report"]

def report() -> dict[str, typing.Any]:
    """
    Driver, runtime and devices as the CUDA runtime sees them.

    Never raises for a machine without a GPU. Keys: ``runtime_version`` and ``driver_version``
    (13000 for CUDA 13.0; driver 0 means that there is none), ``error_name`` (empty when all
    went well) and ``devices``, a list of dictionaries with ``name``, ``compute_capability``,
    ``total_memory`` in bytes and ``multiprocessors``.
    """

__version__: str
