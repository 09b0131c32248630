# SPDX-License-Identifier: Apache-2.0
"""Exact, reproducible, weighted k-means for many groups at once, on the CPU.

``import ddkern`` loads nothing but this file: every public name is resolved on first use
(PEP 562), and only then are numpy and the extension module imported.

Public functions
----------------
quantize
    Quantize every group of a data set: centroids, cell masses, exact assignments.
assign
    Nearest centroid (or the nearest few) of every row, exactly.
seed_centroids
    Starting centroids alone.
show_config
    Version, instruction sets, threads and CUDA state, as a bug report needs them.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # type checkers treat this name like typing.TYPE_CHECKING, without its import
if TYPE_CHECKING:
    from ddkern.backend import show_config
    from ddkern.errors import ConvergenceWarning, CudaError, EmptyCellWarning, UnsupportedError
    from ddkern.kmeans import (
        Progress,
        QuantizeResult,
        QuantizeStats,
        SeedResult,
        assign,
        quantize,
        seed_centroids,
    )

__version__ = "0.1.0"

__all__ = [
    "ConvergenceWarning",
    "CudaError",
    "EmptyCellWarning",
    "Progress",
    "QuantizeResult",
    "QuantizeStats",
    "SeedResult",
    "UnsupportedError",
    "__version__",
    "assign",
    "quantize",
    "seed_centroids",
    "show_config",
]

_HOME_OF = {
    "ConvergenceWarning": "ddkern.errors",
    "CudaError": "ddkern.errors",
    "EmptyCellWarning": "ddkern.errors",
    "Progress": "ddkern.kmeans",
    "QuantizeResult": "ddkern.kmeans",
    "QuantizeStats": "ddkern.kmeans",
    "SeedResult": "ddkern.kmeans",
    "UnsupportedError": "ddkern.errors",
    "assign": "ddkern.kmeans",
    "quantize": "ddkern.kmeans",
    "seed_centroids": "ddkern.kmeans",
    "show_config": "ddkern.backend",
}

# Subpackages that ``ddkern.<name>`` finds without an import statement of its own. Those that
# need an optional package (``estimators``, ``augment``, ``models``) are imported when asked for.
_MODULES = frozenset(
    {
        "arrays",
        "augment",
        "backend",
        "data",
        "distill",
        "errors",
        "estimators",
        "kmeans",
        "models",
        "report",
        "typing",
    }
)


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        value: object = getattr(importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"ddkern.{name}")
    raise AttributeError(f"module 'ddkern' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF, *_MODULES})
