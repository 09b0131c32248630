# SPDX-License-Identifier: Apache-2.0
"""quantize: Lloyd's fixed-point iteration on every group."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddkern import _core
from ddkern.checks import as_count, as_number, check_choice
from ddkern.errors import ConvergenceWarning, EmptyCellWarning
from ddkern.kmeans import device as on_device
from ddkern.kmeans.device_arrays import DeviceArray
from ddkern.kmeans.options import MOST_RESTARTS, as_n_threads, workspace_bytes
from ddkern.kmeans.problem import (
    Problem,
    parse_init_centroids,
    parse_k,
    parse_problem,
    parse_random_state,
    parse_sample_weight,
    require_rows,
)
from ddkern.kmeans.result import QuantizeResult, QuantizeStats
from ddkern.progress import ProgressArgument, report_progress
from ddkern.typing import Algorithm, ArrayLike, DeviceArgument, InitMethod

__all__ = ["ALGORITHMS", "INIT_METHODS", "quantize"]

INIT_METHODS = ("k-means++", "random")
ALGORITHMS = ("auto", "gram", "streaming")


def quantize(
    x: ArrayLike,
    k: int | Mapping[int, int] | ArrayLike,
    *,
    groups: ArrayLike | None = None,
    batch_dims: int = 0,
    sample_weight: ArrayLike | None = None,
    init: InitMethod | ArrayLike = "k-means++",
    n_init: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
    algorithm: Algorithm = "auto",
    random_state: int | ArrayLike | None = None,
    n_threads: int | None = None,
    max_memory: int | None = None,
    device: DeviceArgument = None,
    progress: ProgressArgument = None,
) -> QuantizeResult:
    """Quantize every group of rows: k centroids, their cell masses, exact assignments.

    For each group, centroids are sought that minimise the distortion
    ``sum_i a_i min_j |x_i - c_j|^2 / sum_i a_i``. Weighted with the masses of their cells, they
    are the discrete measure on k points that is nearest to the group in the 2-Wasserstein
    distance, up to Lloyd's local optimum; that distance squared is the distortion.

    The result has the same bits for any number of threads, any instruction set, any
    ``algorithm`` and ``max_memory``, and for a group alone or among others.

    Parameters
    ----------
    x : array, shape (n, *feature), or (b, n, *feature) with ``batch_dims=1``
        The rows; all axes after that of the rows together are one point. numpy array, torch
        tensor, or any array that speaks DLPack: float64, float32, float16, bfloat16, bool or
        integers (64-bit integers within 2**53 of 0), of any strides, read-only or memory-mapped.
        Every value must be finite. The data is not copied as a whole in CPU memory; the Notes
        say what happens in CUDA memory.
    k : int, mapping or array of int, shape (G,)
        Centroids for each group: one number for all; a mapping from every group id to its number;
        or one number a group, by ascending id. At most the number of rows of positive weight.
    groups : array of int, shape (n,), optional
        The group id of each row, in any order. Without it all rows are one group, of id 0.
    batch_dims : {0, 1}
        1 makes every item of the first axis a problem of its own, with the same number of rows
        and the same k.
    sample_weight : array, shape (n,) or (b, n), optional
        Weight of each row: finite, at least 0, not 0 for a whole group. A weight of 3 means what
        three copies of the row would mean; 0 means absence, but the row is still assigned.
    init : {"k-means++", "random"} or array of the shape of the centroids
        ``"k-means++"`` is the greedy form, with ``2 + floor(ln k)`` trials a step; ``"random"``
        draws distinct rows in proportion to their weights; an array is taken as it is, rounded to
        the type of the centroids. It may lie in CPU memory or where ``x`` does.
    n_init : int
        Restarts with other draws, at most 65535; the one of least distortion is kept. 1 if ``init``
        is an array.
    max_iter : int
        Most Lloyd iterations. Only the repair of cells that lost all their points goes beyond it.
    tol : float
        A group has converged when its centroids moved, in total squared distance, by at most
        ``tol`` times the mean over features of its weighted variance, or when no assignment
        changed. With 0, only the latter counts.
    algorithm : {"auto", "gram", "streaming"}
        ``"gram"`` works on the inner products of a group's rows, computed once; ``"streaming"``
        passes over the rows. ``"auto"`` picks the faster by a cost model. Same result.
    random_state : int, or array of int, shape (b,), optional
        Seed with ``0 <= random_state < 2**64``. The draws of a group depend on it and on the
        group's id alone. All items of a batch have id 0, so they share their draws unless an
        array gives every item a seed of its own. None draws a seed from the operating system and
        records it in the result.
    n_threads : int, optional
        Most threads to use. By default what ``OMP_NUM_THREADS``, threadpoolctl and the CPU
        affinity allow, and one where the rows and centroids are so few that waking the others would
        take longer. Ignored where ``x`` lies in CUDA memory.
    max_memory : int, optional
        Bound on the workspace in bytes; by default a quarter of the memory that is free, and three
        quarters of what is free on the device where ``x`` lies in CUDA memory. Only a
        group whose sums, seeds and labels alone need more gets that. A small budget makes the call
        slower, never different. With ``device``, it bounds what lies on each device, rows included.
    device : str, torch.device or list of these, optional
        Where rows in CPU memory are worked on: ``"cuda"``, ``"cuda:1"``, a list of devices, or
        ``"all"`` for every GPU that is visible. By default, where ``x`` lies. See the Notes.
    progress : bool or callable, optional
        True shows groups done and time left on standard error: a bar where rich is installed and
        standard error is a terminal, lines of text otherwise. A callable receives a
        :class:`ddkern.Progress` each time.

    Returns
    -------
    QuantizeResult
        With arrays of the library of ``x``, on the same device.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it, its value and the rule.
    MemoryError
        If what ``algorithm`` forces cannot be allocated.
    UnsupportedError
        If ``x`` lies in CUDA memory, or ``device`` asks for it, and this build or machine cannot
        work on it there.
    CudaError
        If the CUDA runtime reports an error.

    Warns
    -----
    ConvergenceWarning
        If a group reached ``max_iter`` first. Its assignments are exact all the same.
    EmptyCellWarning
        If a group has fewer distinct rows than k, so that some cells have mass 0.

    See Also
    --------
    assign : nearest centroids of other rows.
    seed_centroids : starting centroids alone.

    Notes
    -----
    ``assignment`` is the argmin over the returned centroids in real arithmetic on the stored
    values, the lowest index among exact ties. Products in low precision are used only where an
    error bound proves the winner; ``stats.rows_rechecked`` counts the rest. Seeding, sums and
    stopping rule are defined operation by operation in docs/numerics.md.

    Rows in CUDA memory are worked on where they lie, with the same result to the bit. That takes a
    build with CUDA (``ddkern.show_config()`` tells) and torch, through which arrays of other
    libraries are seen without a copy. float32 and float64 are read in place if the features of a
    row lie side by side, and copied otherwise; other types are converted on the device, to float64
    for 32- and 64-bit integers and to float32 otherwise. Everything runs in order on torch's
    current stream of the device and takes its workspace from torch's allocator; the call returns
    when the result is there. ``groups``, ``k``, ``sample_weight`` and ``random_state`` may lie in
    either memory and are brought to the host.

    With ``device``, whole groups of rows in CPU memory are brought to the devices, some at a time
    through page-locked memory, and the next ones while those are worked on, so that ``x`` may be
    larger than the memory of all of them: a memory-mapped file, say. Each device takes the next
    groups when it is done with some. The largest group must fit on each device. Results lie in CPU
    memory.

    The call releases the GIL, can be interrupted with Ctrl-C, touches no global random state, and
    works in a forked child (there with one thread by default).

    References
    ----------
    .. [1] S. Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory
       28(2), 1982.
    .. [2] D. Arthur and S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA
       2007.
    .. [3] G. Pages, "Introduction to vector quantization and its applications for numerics",
       ESAIM: Proceedings and Surveys 48, 2015.

    Examples
    --------
    >>> import numpy as np, ddkern
    >>> x = np.array([[0.0], [1.0], [10.0], [12.0]])
    >>> q = ddkern.quantize(x, 2, random_state=0)
    >>> sorted(q.centroids.ravel().tolist())
    [0.5, 11.0]
    >>> q.weights
    array([0.5, 0.5])
    >>> q.distortion.item()
    0.625
    """
    started = time.perf_counter()
    problem = parse_problem(x, groups, batch_dims)
    devices = on_device.parse_device(device, problem.x)
    counts = parse_k(k, problem)
    weight = parse_sample_weight(sample_weight, problem)
    require_rows(counts, weight, problem)
    method, init_centroids = _parse_init(init, problem, counts)
    n_init = as_count("n_init", n_init, at_most=MOST_RESTARTS)
    if method == "array" and n_init != 1:
        raise ValueError(
            f"n_init={n_init} with an array as init; it must be 1, since every restart would be "
            "the same"
        )
    max_iter = as_count("max_iter", max_iter)
    recorded_seed, seeds = parse_random_state(random_state, problem)
    threads = as_n_threads(n_threads, problem.multiply_adds(counts))
    with report_progress(progress, "quantize", "groups") as core_progress:
        arguments: dict[str, Any] = {
            "k": counts,
            "group_ids": problem.partition.ids,
            "seeds": seeds,
            "sample_weight": weight,
            "init": method,
            "init_centroids": init_centroids,
            "n_init": n_init,
            "max_iter": max_iter,
            "tol": as_number("tol", tol, at_least=0),
            "algorithm": check_choice("algorithm", algorithm, ALGORITHMS),
            "progress": core_progress,
        }
        if devices:
            from ddkern.kmeans import shards

            fitted = shards.fit(problem, devices, max_memory, **arguments)
        elif isinstance(problem.x, DeviceArray):
            fitted = on_device.fit(problem, max_memory=max_memory, **arguments)
        else:
            fitted = _core.fit(
                **problem.core_arguments(),
                n_threads=threads,
                max_memory=workspace_bytes(max_memory),
                **arguments,
            )
    _warn_about(fitted, problem, counts, max_iter)
    return _result(fitted, problem, counts, recorded_seed, time.perf_counter() - started)


def _parse_init(
    init: InitMethod | ArrayLike, problem: Problem, counts: NDArray[np.int64]
) -> tuple[str, Any]:
    if isinstance(init, str):
        if init not in INIT_METHODS:
            raise ValueError(
                f"init={init!r}; it must be 'k-means++', 'random' or an array of centroids"
            )
        return init, None
    return "array", parse_init_centroids(init, problem, counts)


def _warn_about(
    fitted: dict[str, Any], problem: Problem, counts: NDArray[np.int64], max_iter: int
) -> None:
    # stacklevel 3: the line that called quantize.
    unfinished = ~fitted["converged"]
    if unfinished.any():
        warnings.warn(
            f"{problem.name_groups(unfinished)} (of {problem.n_groups}) did not converge within "
            f"max_iter={max_iter} iterations; raise max_iter or tol if that matters",
            ConvergenceWarning,
            stacklevel=3,
        )
    empty = fitted["empty_cells"] > 0
    if empty.any():
        g = int(np.argmax(empty))
        warnings.warn(
            f"fewer distinct rows than k in {problem.name_groups(empty)} "
            f"({problem.name_group(g)}: {fitted['empty_cells'][g]} of k={counts[g]} cells are "
            "empty); empty cells have weight 0",
            EmptyCellWarning,
            stacklevel=3,
        )


def _result(
    fitted: dict[str, Any],
    problem: Problem,
    counts: NDArray[np.int64],
    recorded_seed: int | NDArray[np.uint64],
    seconds: float,
) -> QuantizeResult:
    wrap = problem.x.wrap
    per_centroid = problem.per_centroid_shape(counts)
    first_centroid = np.cumsum(counts) - counts
    assignment = problem.global_rows(fitted["assignment"][:, None], first_centroid)
    stats = fitted["stats"]
    return QuantizeResult(
        centroids=wrap(fitted["centroids"].reshape(per_centroid + problem.feature_shape)),
        weights=wrap(fitted["mass"].reshape(per_centroid)),
        groups=wrap(np.repeat(problem.partition.ids, counts).reshape(per_centroid)),
        assignment=wrap(assignment.reshape(problem.rows_shape)),
        distortion=wrap(fitted["distortion"]),
        distortion_history=problem.x.wrap_all(fitted["history"]),
        inertia=wrap(fitted["inertia"]),
        n_iter=wrap(fitted["n_iter"]),
        converged=wrap(fitted["converged"]),
        random_state=recorded_seed,
        stats=QuantizeStats(
            algorithm=tuple(stats["algorithm"]),
            products=tuple(stats["products"]),
            isa=fitted["isa"],
            n_threads=fitted["n_threads"],
            restart=fitted["restart"],
            rows_assigned=stats["rows_assigned"],
            rows_rechecked=stats["rows_rechecked"],
            rows_exact=stats["rows_exact"],
            products_skipped=stats["products_skipped"],
            cells_reseeded=stats["cells_reseeded"],
            empty_cells=fitted["empty_cells"],
            seconds_prepare=stats["seconds_prepare"],
            seconds_seed=stats["seconds_seed"],
            seconds_lloyd=stats["seconds_lloyd"],
            seconds_total=seconds,
        ),
    )
