# SPDX-License-Identifier: Apache-2.0
"""
CUDA part of ddkern; present where the build found a working nvcc.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing

__all__: list[str] = [
    "absolute_sums",
    "ascent_step",
    "ascent_workspace",
    "assign",
    "fit",
    "linear_update",
    "mmd_means",
    "mmd_pull",
    "mmd_workspace",
    "momentum_update",
    "products_workspace",
    "pull_workspace",
    "report",
    "row_combination",
    "row_products",
    "scaled_difference",
    "seed",
    "segment_means",
    "segment_workspace",
    "trajectory_sums",
    "trajectory_workspace",
]

def absolute_sums(
    *,
    student: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    target: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    sizes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    total_of: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    n_totals: typing.SupportsInt | typing.SupportsIndex,
    bfloat16: bool,
    workspace: typing.SupportsInt | typing.SupportsIndex,
    sums: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Sums of |student - target|: see ddkern.losses.
    """

def ascent_step(
    *,
    n_rows: typing.SupportsInt | typing.SupportsIndex,
    n: typing.SupportsInt | typing.SupportsIndex,
    gradient: typing.SupportsInt | typing.SupportsIndex,
    size: typing.SupportsInt | typing.SupportsIndex,
    out: typing.SupportsInt | typing.SupportsIndex,
    rho: typing.SupportsFloat | typing.SupportsIndex,
    workspace: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Steps of length rho, a row each, into out; size may be 0: see ddkern.updates.
    """

def ascent_workspace(
    *,
    n_rows: typing.SupportsInt | typing.SupportsIndex,
    n: typing.SupportsInt | typing.SupportsIndex,
) -> int:
    """
    Doubles of workspace that ascent_step takes.
    """

def assign(
    *,
    x: typing.SupportsInt | typing.SupportsIndex,
    float64: bool,
    n_rows: typing.SupportsInt | typing.SupportsIndex,
    n_features: typing.SupportsInt | typing.SupportsIndex,
    row_stride: typing.SupportsInt | typing.SupportsIndex,
    order: typing.Annotated[numpy.typing.ArrayLike, numpy.int64] | None,
    offsets: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    centroids: typing.SupportsInt | typing.SupportsIndex,
    k: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    n_nearest: typing.SupportsInt | typing.SupportsIndex,
    return_distance: bool,
    max_memory: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    allocate: typing.Any,
    assignment: typing.SupportsInt | typing.SupportsIndex,
    distance: typing.SupportsInt | typing.SupportsIndex,
    progress: typing.Any,
) -> dict[str, typing.Any]:
    """
    The nearest centroids of every row: see ddkern.assign.
    """

def fit(
    *,
    x: typing.SupportsInt | typing.SupportsIndex,
    float64: bool,
    n_rows: typing.SupportsInt | typing.SupportsIndex,
    n_features: typing.SupportsInt | typing.SupportsIndex,
    row_stride: typing.SupportsInt | typing.SupportsIndex,
    order: typing.Annotated[numpy.typing.ArrayLike, numpy.int64] | None,
    offsets: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    k: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    group_ids: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    seeds: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
    sample_weight: typing.Annotated[numpy.typing.ArrayLike, numpy.float64] | None,
    init: str,
    init_centroids: typing.SupportsInt | typing.SupportsIndex,
    n_init: typing.SupportsInt | typing.SupportsIndex,
    max_iter: typing.SupportsInt | typing.SupportsIndex,
    tol: typing.SupportsFloat | typing.SupportsIndex,
    algorithm: str,
    max_memory: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    allocate: typing.Any,
    centroids: typing.SupportsInt | typing.SupportsIndex,
    mass: typing.SupportsInt | typing.SupportsIndex,
    assignment: typing.SupportsInt | typing.SupportsIndex,
    progress: typing.Any,
) -> dict[str, typing.Any]:
    """
    k-means over groups of rows in device memory: see ddkern.quantize.
    """

def linear_update(
    *,
    n: typing.SupportsInt | typing.SupportsIndex,
    x: typing.SupportsInt | typing.SupportsIndex,
    y: typing.SupportsInt | typing.SupportsIndex,
    out: typing.SupportsInt | typing.SupportsIndex,
    alpha: typing.SupportsFloat | typing.SupportsIndex,
    beta: typing.SupportsFloat | typing.SupportsIndex,
    beta_at: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    alpha x + beta y into out; beta is that at beta_at unless it is 0: see ddkern.updates.
    """

def mmd_means(
    *,
    x: typing.SupportsInt | typing.SupportsIndex,
    y: typing.SupportsInt | typing.SupportsIndex,
    n: typing.SupportsInt | typing.SupportsIndex,
    m: typing.SupportsInt | typing.SupportsIndex,
    n_features: typing.SupportsInt | typing.SupportsIndex,
    rates: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    rates_at: typing.SupportsInt | typing.SupportsIndex,
    n_rates_at: typing.SupportsInt | typing.SupportsIndex,
    workspace: typing.SupportsInt | typing.SupportsIndex,
    out: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Means of a kernel over pairs of x, of x and y, and of y, into out; rates are those at rates_at unless it is 0: see ddkern.losses.
    """

def mmd_pull(
    *,
    x: typing.SupportsInt | typing.SupportsIndex,
    y: typing.SupportsInt | typing.SupportsIndex,
    n: typing.SupportsInt | typing.SupportsIndex,
    m: typing.SupportsInt | typing.SupportsIndex,
    n_features: typing.SupportsInt | typing.SupportsIndex,
    rates: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    rates_at: typing.SupportsInt | typing.SupportsIndex,
    n_rates_at: typing.SupportsInt | typing.SupportsIndex,
    own: typing.SupportsInt | typing.SupportsIndex,
    cross: typing.SupportsInt | typing.SupportsIndex,
    workspace: typing.SupportsInt | typing.SupportsIndex,
    out: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    The derivative of such means by x into out, with factors in device memory: see ddkern.losses.
    """

def mmd_workspace(
    *, n: typing.SupportsInt | typing.SupportsIndex, m: typing.SupportsInt | typing.SupportsIndex
) -> int:
    """
    Doubles of workspace that mmd_means takes.
    """

def momentum_update(
    *,
    n: typing.SupportsInt | typing.SupportsIndex,
    theta: typing.SupportsInt | typing.SupportsIndex,
    velocity: typing.SupportsInt | typing.SupportsIndex,
    gradient: typing.SupportsInt | typing.SupportsIndex,
    theta_out: typing.SupportsInt | typing.SupportsIndex,
    velocity_out: typing.SupportsInt | typing.SupportsIndex,
    lr: typing.SupportsFloat | typing.SupportsIndex,
    lr_at: typing.SupportsInt | typing.SupportsIndex,
    momentum: typing.SupportsFloat | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    A step of SGD with momentum; lr is that at lr_at unless it is 0: see ddkern.updates.
    """

def products_workspace(
    *,
    n_rows: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    n_columns: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
) -> int:
    """
    Doubles of workspace that row_products takes.
    """

def pull_workspace(
    *, n: typing.SupportsInt | typing.SupportsIndex, m: typing.SupportsInt | typing.SupportsIndex
) -> int:
    """
    Doubles of workspace that mmd_pull takes.
    """

def report() -> dict[str, typing.Any]:
    """
    Driver, runtime and devices as the CUDA runtime sees them.

    Never raises for a machine without a GPU. Keys: ``runtime_version`` and ``driver_version``
    (13000 for CUDA 13.0; driver 0 means that there is none), ``error_name`` (empty when all
    went well) and ``devices``, a list of dictionaries with ``name``, ``compute_capability``,
    ``total_memory`` in bytes and ``multiprocessors``.
    """

def row_combination(
    *,
    a: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    b: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    out: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    n_rows: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    n_columns: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    bfloat16: bool,
    of_a: typing.SupportsInt | typing.SupportsIndex,
    of_b: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    of_a * a + of_b * b into out, with one factor a row of matrices: see ddkern.losses.
    """

def row_products(
    *,
    a: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    b: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    n_rows: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    n_columns: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    bfloat16: bool,
    workspace: typing.SupportsInt | typing.SupportsIndex,
    out: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Sums of a * b, a^2 and b^2 of every row of matrices into out: see ddkern.losses.
    """

def scaled_difference(
    *,
    a: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    b: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    out: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    sizes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    total_of: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    n_totals: typing.SupportsInt | typing.SupportsIndex,
    bfloat16: bool,
    factors: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    factors[total] * (a - b) into out; factors are float64: see ddkern.losses.
    """

def seed(
    *,
    x: typing.SupportsInt | typing.SupportsIndex,
    float64: bool,
    n_rows: typing.SupportsInt | typing.SupportsIndex,
    n_features: typing.SupportsInt | typing.SupportsIndex,
    row_stride: typing.SupportsInt | typing.SupportsIndex,
    order: typing.Annotated[numpy.typing.ArrayLike, numpy.int64] | None,
    offsets: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    k: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    group_ids: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    seeds: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
    sample_weight: typing.Annotated[numpy.typing.ArrayLike, numpy.float64] | None,
    init: str,
    algorithm: str,
    max_memory: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    allocate: typing.Any,
    rows: typing.SupportsInt | typing.SupportsIndex,
    progress: typing.Any,
) -> dict[str, typing.Any]:
    """
    Seeds alone: see ddkern.seed_centroids.
    """

def segment_means(
    *,
    values: typing.SupportsInt | typing.SupportsIndex,
    labels: typing.SupportsInt | typing.SupportsIndex,
    n_rows: typing.SupportsInt | typing.SupportsIndex,
    n_features: typing.SupportsInt | typing.SupportsIndex,
    n_classes: typing.SupportsInt | typing.SupportsIndex,
    workspace: typing.SupportsInt | typing.SupportsIndex,
    out: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Means of the rows of each class into out: see ddkern.losses.
    """

def segment_workspace(
    *,
    n_rows: typing.SupportsInt | typing.SupportsIndex,
    n_classes: typing.SupportsInt | typing.SupportsIndex,
) -> int:
    """
    Doubles of workspace that segment_means takes.
    """

def trajectory_sums(
    *,
    student: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    target: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    start: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] | None,
    sizes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    total_of: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    n_totals: typing.SupportsInt | typing.SupportsIndex,
    bfloat16: bool,
    workspace: typing.SupportsInt | typing.SupportsIndex,
    sums: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Sums of (student - target)^2 and (start - target)^2: see ddkern.losses.
    """

def trajectory_workspace(
    *, sizes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
) -> int:
    """
    Doubles of workspace that trajectory_sums and absolute_sums take.
    """

__version__: str
