# SPDX-License-Identifier: Apache-2.0
"""Optimal quantization: k-means for many groups of rows at once."""

from __future__ import annotations

from ddkern.backend import show_config
from ddkern.kmeans.fit import quantize
from ddkern.kmeans.nearest import assign
from ddkern.kmeans.result import QuantizeResult, QuantizeStats, SeedResult
from ddkern.kmeans.seeding import seed_centroids
from ddkern.progress import Progress

__all__ = [
    "Progress",
    "QuantizeResult",
    "QuantizeStats",
    "SeedResult",
    "assign",
    "quantize",
    "seed_centroids",
    "show_config",
]
