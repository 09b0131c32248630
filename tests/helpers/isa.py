# SPDX-License-Identifier: Apache-2.0
"""Forcing the instruction set level that the kernels run at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Weakest first. A level that a build or CPU lacks is skipped by name, so that the report shows it.
LEVELS = ("base", "avx2", "avx512", "avx512vnni", "avx512bf16")


@contextmanager
def forced_isa(level: str) -> Iterator[str]:
    """Run at `level` inside the block and at the level chosen before it afterwards."""
    from ddkern import _core

    if level not in _core.isa_available():
        pytest.skip(f"this CPU or build has no {level}")
    before = _core.isa_active()
    _core.isa_force(level)
    try:
        assert _core.isa_active() == level
        yield level
    finally:
        _core.isa_force(before)
