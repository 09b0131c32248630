# SPDX-License-Identifier: Apache-2.0
"""Differentiable losses between networks and between data, on kernels where they help.

Each stands beside its plain form in torch, which also serves other devices and dtypes. Importing
this package needs torch: ``pip install ddkern[torch]``.
"""

from __future__ import annotations

from ddkern.losses.distribution import (
    mean_distance,
    mean_distance_reference,
    mmd,
    mmd_bandwidths,
    mmd_reference,
    segment_means,
    segment_means_reference,
)
from ddkern.losses.gradient import (
    GradientMetric,
    gradient_distance,
    gradient_distance_reference,
    gradient_norm,
    gradient_norm_reference,
)
from ddkern.losses.trajectory import (
    absolute_distance,
    absolute_distance_reference,
    squared_distance,
    squared_distance_reference,
    trajectory_distance,
    trajectory_distance_reference,
)

__all__ = [
    "GradientMetric",
    "absolute_distance",
    "absolute_distance_reference",
    "gradient_distance",
    "gradient_distance_reference",
    "gradient_norm",
    "gradient_norm_reference",
    "mean_distance",
    "mean_distance_reference",
    "mmd",
    "mmd_bandwidths",
    "mmd_reference",
    "segment_means",
    "segment_means_reference",
    "squared_distance",
    "squared_distance_reference",
    "trajectory_distance",
    "trajectory_distance_reference",
]
