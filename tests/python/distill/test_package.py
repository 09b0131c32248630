# SPDX-License-Identifier: Apache-2.0
"""The names of ``ddkern.distill``, which works without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ddkern.distill


@pytest.mark.parametrize("name", ddkern.distill.__all__)
def test_every_public_name_resolves(name: str) -> None:
    if name in ("NetworkFeatures", "Unroll"):
        pytest.importorskip("torch")
    assert getattr(ddkern.distill, name).__name__ == name


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'ddkern.distill' has no attribute 'destill'"):
        _ = ddkern.distill.destill


def test_without_torch() -> None:
    program = """
import sys
sys.modules["torch"] = None
import ddkern, ddkern.distill
try:
    ddkern.distill.NetworkFeatures
except ddkern.UnsupportedError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "NetworkFeatures needs the package torch" in done.stdout
