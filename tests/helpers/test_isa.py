# SPDX-License-Identifier: Apache-2.0
"""A forced level must be in force, and must end with the block."""

from __future__ import annotations

import pytest

from helpers.isa import LEVELS, forced_isa

_core = pytest.importorskip("ddkern._core", reason="the extension module is not built")


def test_every_level_of_the_build_is_known() -> None:
    assert set(_core.isa_available()) <= set(LEVELS)


def test_forced_level_ends_with_the_block() -> None:
    before = _core.isa_active()
    for level in _core.isa_available():
        with forced_isa(level):
            assert _core.isa_active() == level
        assert _core.isa_active() == before


def test_forced_level_ends_with_an_exception() -> None:
    before = _core.isa_active()
    with pytest.raises(ZeroDivisionError), forced_isa("base"):
        raise ZeroDivisionError
    assert _core.isa_active() == before


def test_absent_level_skips() -> None:
    with pytest.raises(pytest.skip.Exception, match="no quantum"), forced_isa("quantum"):
        pass
