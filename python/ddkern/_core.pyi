# SPDX-License-Identifier: Apache-2.0
"""
The CPU kernels of ddkern. Arguments are checked by the Python layer above.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing

__all__: list[str] = [
    "absolute_sums",
    "ascent_step",
    "assign",
    "cpu_features",
    "fit",
    "has_openmp",
    "isa_active",
    "isa_available",
    "isa_force",
    "linear_update",
    "max_threads",
    "mmd_means",
    "mmd_pull",
    "momentum_update",
    "norm_relu_pool_backward",
    "norm_relu_pool_forward",
    "option_defaults",
    "plan",
    "probe_peak",
    "row_combination",
    "row_products",
    "scaled_difference",
    "seed",
    "segment_means",
    "trajectory_sums",
]

def absolute_sums(
    *,
    student: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    target: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    sizes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    total_of: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    n_totals: typing.SupportsInt | typing.SupportsIndex,
    bfloat16: bool,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.float64]:
    """
    Sums of |student - target|, shape (n_totals,): see ddkern.losses.
    """

def ascent_step(
    *,
    gradient: numpy.ndarray,
    size: numpy.ndarray | None,
    out: numpy.ndarray,
    rho: typing.SupportsFloat | typing.SupportsIndex,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Steps of length rho, a row each, into out: see ddkern.updates.
    """

def assign(
    *,
    x: numpy.ndarray,
    bfloat16: bool,
    batch_dims: typing.SupportsInt | typing.SupportsIndex,
    order: typing.Annotated[numpy.typing.ArrayLike, numpy.int64] | None,
    offsets: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    centroids: numpy.ndarray,
    k: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    n_nearest: typing.SupportsInt | typing.SupportsIndex,
    return_distance: bool,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    max_memory: typing.SupportsInt | typing.SupportsIndex,
    progress: typing.Any,
) -> dict[str, typing.Any]:
    """
    The nearest centroids of every row: see ddkern.assign.
    """

def cpu_features() -> dict[str, typing.Any]:
    """
    The CPU features that decide the levels, and whether this CPU has them.
    """

def fit(
    *,
    x: numpy.ndarray,
    bfloat16: bool,
    batch_dims: typing.SupportsInt | typing.SupportsIndex,
    order: typing.Annotated[numpy.typing.ArrayLike, numpy.int64] | None,
    offsets: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    k: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    group_ids: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    seeds: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
    sample_weight: typing.Annotated[numpy.typing.ArrayLike, numpy.float64] | None,
    init: str,
    init_centroids: typing.Any,
    n_init: typing.SupportsInt | typing.SupportsIndex,
    max_iter: typing.SupportsInt | typing.SupportsIndex,
    tol: typing.SupportsFloat | typing.SupportsIndex,
    algorithm: str,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    max_memory: typing.SupportsInt | typing.SupportsIndex,
    progress: typing.Any,
) -> dict[str, typing.Any]:
    """
    k-means over groups of rows: see ddkern.quantize.
    """

def isa_active() -> str:
    """
    The level that the next call uses; DDKERN_ISA narrows it.
    """

def isa_available() -> list[str]:
    """
    Instruction-set levels that this build has and this CPU can run, weakest first.
    """

def isa_force(name: str | None) -> None:
    """
    Force a level; None undoes it.
    """

def linear_update(
    *,
    x: numpy.ndarray,
    y: numpy.ndarray,
    out: numpy.ndarray,
    alpha: typing.SupportsFloat | typing.SupportsIndex,
    beta: typing.SupportsFloat | typing.SupportsIndex,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    alpha x + beta y into out: see ddkern.updates.
    """

def max_threads() -> int:
    """
    What n_threads=None means now.
    """

def mmd_means(
    *,
    x: numpy.ndarray,
    y: numpy.ndarray,
    rates: numpy.ndarray,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> tuple[float, float, float]:
    """
    Means of a kernel over pairs of x, of x and y, and of y: see ddkern.losses.
    """

def mmd_pull(
    *,
    x: numpy.ndarray,
    y: numpy.ndarray,
    rates: numpy.ndarray,
    own: typing.SupportsFloat | typing.SupportsIndex,
    cross: typing.SupportsFloat | typing.SupportsIndex,
    out: numpy.ndarray,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    The derivative of such means by x into out: see ddkern.losses.
    """

def momentum_update(
    *,
    theta: numpy.ndarray,
    velocity: numpy.ndarray,
    gradient: numpy.ndarray,
    theta_out: numpy.ndarray,
    velocity_out: numpy.ndarray,
    lr: typing.SupportsFloat | typing.SupportsIndex,
    momentum: typing.SupportsFloat | typing.SupportsIndex,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    A step of SGD with momentum: see ddkern.updates.
    """

def norm_relu_pool_backward(
    *,
    grad_out: numpy.ndarray,
    x: numpy.ndarray,
    mean: numpy.ndarray,
    rstd: numpy.ndarray,
    weight: numpy.ndarray,
    bias: numpy.ndarray,
    grad_x: numpy.ndarray | None,
    grad_weight: numpy.ndarray,
    grad_bias: numpy.ndarray,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Gradients of norm_relu_pool_forward, which gave mean and rstd; grad_x may be None.
    """

def norm_relu_pool_forward(
    *,
    x: numpy.ndarray,
    weight: numpy.ndarray,
    bias: numpy.ndarray,
    eps: typing.SupportsFloat | typing.SupportsIndex,
    out: numpy.ndarray,
    mean: numpy.ndarray,
    rstd: numpy.ndarray,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Instance norm, ReLU and average pooling of maps (n, h, w, c): see ddkern.layers.
    """

def option_defaults() -> dict[str, typing.Any]:
    """
    The defaults of the core's options, which the Python signature repeats.
    """

def plan(
    *,
    n_rows: typing.SupportsInt | typing.SupportsIndex,
    n_features: typing.SupportsInt | typing.SupportsIndex,
    k: typing.SupportsInt | typing.SupportsIndex,
    float64: bool,
    in_place: bool,
    fastest: str,
    init: str,
    n_init: typing.SupportsInt | typing.SupportsIndex,
    algorithm: str,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    max_memory: typing.SupportsInt | typing.SupportsIndex,
) -> dict[str, typing.Any]:
    """
    What the cost model chooses for one group of this shape.
    """

def probe_peak(n_threads: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
    """
    What the machine reaches at most with so many threads, measured.
    """

def row_combination(
    *,
    a: collections.abc.Sequence[numpy.ndarray],
    b: collections.abc.Sequence[numpy.ndarray],
    of_a: numpy.ndarray,
    of_b: numpy.ndarray,
    out: collections.abc.Sequence[numpy.ndarray],
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    of_a * a + of_b * b into out, with one factor a row of matrices: see ddkern.losses.
    """

def row_products(
    *,
    a: collections.abc.Sequence[numpy.ndarray],
    b: collections.abc.Sequence[numpy.ndarray],
    out: numpy.ndarray,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
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
    factors: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    bfloat16: bool,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    factors[total] * (a - b) into out: see ddkern.losses.
    """

def seed(
    *,
    x: numpy.ndarray,
    bfloat16: bool,
    batch_dims: typing.SupportsInt | typing.SupportsIndex,
    order: typing.Annotated[numpy.typing.ArrayLike, numpy.int64] | None,
    offsets: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    k: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    group_ids: typing.Annotated[numpy.typing.ArrayLike, numpy.int64],
    seeds: typing.Annotated[numpy.typing.ArrayLike, numpy.uint64],
    sample_weight: typing.Annotated[numpy.typing.ArrayLike, numpy.float64] | None,
    init: str,
    algorithm: str,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    max_memory: typing.SupportsInt | typing.SupportsIndex,
    progress: typing.Any,
) -> dict[str, typing.Any]:
    """
    Seeds alone: see ddkern.seed_centroids.
    """

def segment_means(
    *,
    values: numpy.ndarray,
    labels: numpy.ndarray,
    counts: numpy.ndarray,
    out: numpy.ndarray,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> None:
    """
    Means of the rows of each class into out: see ddkern.losses.
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
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.float64]:
    """
    Sums of (student - target)^2 and (start - target)^2, shape (2, n_totals): see ddkern.losses.
    """

__version__: str
has_openmp: bool
