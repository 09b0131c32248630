# SPDX-License-Identifier: Apache-2.0
"""Finding the `_simt` module: the CUDA kernels compiled for the CPU."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Set by the Makefile to the folder that `make simt` builds into.
VARIABLE = "DDKERN_SIMT_PATH"


def simt_folder() -> Path:
    """Return the folder of the build, skipping the test where there is none."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"the CUDA kernels were not built for the CPU: run make simt, set {VARIABLE}")
    return Path(folder)


@cache
def _load(folder: Path) -> ModuleType:
    (path,) = folder.glob("_simt.*.so")
    spec = importlib.util.spec_from_file_location("_simt", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_simt"] = module
    spec.loader.exec_module(module)
    return module


def load_simt() -> ModuleType:
    """Return the `_simt` module, skipping the test where it was not built."""
    return _load(simt_folder())


@contextmanager
def simt_options(**changes: Any) -> Iterator[ModuleType]:
    """Run with other options of the scheduler inside the block: see tests/simt/cuda_on_cpu.h."""
    simt = load_simt()
    before = simt.simt_options()
    simt.simt_options(**changes)
    try:
        yield simt
    finally:
        simt.simt_options(**before)
