# SPDX-License-Identifier: Apache-2.0
"""seed_centroids: the starting centroids of quantize, alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddkern import _core
from ddkern.checks import check_choice
from ddkern.kmeans import device as on_device
from ddkern.kmeans.device_arrays import DeviceArray
from ddkern.kmeans.fit import ALGORITHMS, INIT_METHODS
from ddkern.kmeans.options import as_n_threads, workspace_bytes
from ddkern.kmeans.problem import (
    Problem,
    parse_k,
    parse_problem,
    parse_random_state,
    parse_sample_weight,
    require_rows,
)
from ddkern.kmeans.result import SeedResult
from ddkern.progress import ProgressArgument, report_progress
from ddkern.typing import Algorithm, ArrayLike, DeviceArgument, InitMethod

__all__ = ["seed_centroids"]


def seed_centroids(
    x: ArrayLike,
    k: int | Mapping[int, int] | ArrayLike,
    *,
    groups: ArrayLike | None = None,
    batch_dims: int = 0,
    sample_weight: ArrayLike | None = None,
    init: InitMethod = "k-means++",
    algorithm: Algorithm = "auto",
    random_state: int | ArrayLike | None = None,
    n_threads: int | None = None,
    max_memory: int | None = None,
    device: DeviceArgument = None,
    progress: ProgressArgument = None,
) -> SeedResult:
    """Draw starting centroids among the rows of every group.

    The draws are those of :func:`ddkern.quantize` with the same arguments: passing the centroids
    on as its ``init`` gives the result that it would have reached by itself.

    Parameters
    ----------
    x, k, groups, batch_dims, sample_weight, random_state, n_threads, max_memory, device, progress
        As in :func:`ddkern.quantize`.
    init : {"k-means++", "random"}
        ``"k-means++"`` draws a row in proportion to weight times squared distance to the nearest
        seed so far, ``2 + floor(ln k)`` times a step, and keeps the draw that leaves the least
        potential. ``"random"`` draws rows in proportion to their weights, never the same value
        twice while there is another.
    algorithm : {"auto", "gram", "streaming"}
        Whether distances come from the inner products of all rows of a group, or from passes over
        the rows. The draws are the same.

    Returns
    -------
    SeedResult
        With arrays of the library of ``x``, on the same device.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it, its value and the rule.
    UnsupportedError
        If ``x`` lies in CUDA memory, or ``device`` asks for it, and this build or machine cannot
        work on it there.
    CudaError
        If the CUDA runtime reports an error.

    Notes
    -----
    Rows in CUDA memory are worked on where they lie, as :func:`ddkern.quantize` describes, with
    the same draws.

    References
    ----------
    .. [1] D. Arthur and S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA
       2007.

    Examples
    --------
    >>> import numpy as np, ddkern
    >>> x = np.array([[0.0], [0.0], [5.0], [5.0]])
    >>> seeds = ddkern.seed_centroids(x, 2, random_state=0)
    >>> sorted(seeds.centroids.ravel().tolist())
    [0.0, 5.0]
    >>> seeds.potential
    array([0.])
    """
    problem = parse_problem(x, groups, batch_dims)
    devices = on_device.parse_device(device, problem.x)
    counts = parse_k(k, problem)
    weight = parse_sample_weight(sample_weight, problem)
    require_rows(counts, weight, problem)
    recorded_seed, seeds = parse_random_state(random_state, problem)
    threads = as_n_threads(n_threads, problem.multiply_adds(counts))
    with report_progress(progress, "seed_centroids", "groups") as core_progress:
        arguments: dict[str, Any] = {
            "k": counts,
            "group_ids": problem.partition.ids,
            "seeds": seeds,
            "sample_weight": weight,
            "init": check_choice("init", init, INIT_METHODS),
            "algorithm": check_choice("algorithm", algorithm, ALGORITHMS),
            "progress": core_progress,
        }
        if devices:
            from ddkern.kmeans import shards

            seeded = shards.seed(problem, devices, max_memory, **arguments)
        elif isinstance(problem.x, DeviceArray):
            seeded = on_device.seed(problem, max_memory=max_memory, **arguments)
        else:
            seeded = _core.seed(
                **problem.core_arguments(),
                n_threads=threads,
                max_memory=workspace_bytes(max_memory),
                **arguments,
            )
    wrap = problem.x.wrap
    per_centroid = problem.per_centroid_shape(counts)
    centroids = _rows_of(problem, seeded["rows"])
    indices = seeded["rows"]
    if problem.batch is not None:
        indices = indices % problem.rows_shape[1]
    return SeedResult(
        centroids=wrap(centroids.reshape(per_centroid + problem.feature_shape)),
        indices=wrap(indices.reshape(per_centroid)),
        groups=wrap(np.repeat(problem.partition.ids, counts).reshape(per_centroid)),
        potential=wrap(seeded["potential"]),
        random_state=recorded_seed,
    )


def _rows_of(problem: Problem, rows: Any) -> Any:
    """The given rows in the type of the centroids; flattened row numbers for a batch."""
    index: Any = rows
    if problem.batch is not None:
        n = problem.rows_shape[1]
        index = (rows // n, rows % n)
    return problem.x.select(index).as_dtype(problem.x.point_dtype)
