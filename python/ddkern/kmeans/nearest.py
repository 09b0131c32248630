# SPDX-License-Identifier: Apache-2.0
"""assign: the nearest centroids of every row, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ddkern import _core
from ddkern.checks import as_count
from ddkern.kmeans import device as on_device
from ddkern.kmeans.device_arrays import DeviceArray
from ddkern.kmeans.options import as_n_threads, workspace_bytes
from ddkern.kmeans.problem import (
    Partition,
    Problem,
    name_groups,
    parse_centroids,
    parse_ids,
    parse_problem,
    partition_ids,
)
from ddkern.progress import RecordProgress
from ddkern.typing import Array, ArrayLike, DeviceArgument

if TYPE_CHECKING:
    from ddkern.kmeans.shards import Shard

__all__ = ["assign"]


@overload
def assign(
    x: ArrayLike,
    centroids: ArrayLike,
    *,
    groups: ArrayLike | None = ...,
    centroid_groups: ArrayLike | None = ...,
    batch_dims: int = ...,
    return_distance: Literal[False] = ...,
    n_nearest: int = ...,
    n_threads: int | None = ...,
    max_memory: int | None = ...,
    device: DeviceArgument = ...,
) -> Array: ...


@overload
def assign(
    x: ArrayLike,
    centroids: ArrayLike,
    *,
    groups: ArrayLike | None = ...,
    centroid_groups: ArrayLike | None = ...,
    batch_dims: int = ...,
    return_distance: Literal[True],
    n_nearest: int = ...,
    n_threads: int | None = ...,
    max_memory: int | None = ...,
    device: DeviceArgument = ...,
) -> tuple[Array, Array]: ...


def assign(
    x: ArrayLike,
    centroids: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    centroid_groups: ArrayLike | None = None,
    batch_dims: int = 0,
    return_distance: bool = False,
    n_nearest: int = 1,
    n_threads: int | None = None,
    max_memory: int | None = None,
    device: DeviceArgument = None,
) -> Array | tuple[Array, Array]:
    """Find the nearest centroid, or the nearest few, of every row, exactly.

    Parameters
    ----------
    x : array, shape (n, *feature), or (b, n, *feature) with ``batch_dims=1``
        The rows, as in :func:`ddkern.quantize`.
    centroids : array, shape (K, *feature), or (b, k, *feature) with ``batch_dims=1``
        Finite values of any supported dtype, in CPU memory or where ``x`` lies.
    groups : array of int, shape (n,), optional
        With ``centroid_groups``: a row is compared with the centroids of its own group only.
    centroid_groups : array of int, shape (K,), optional
        The group id of each centroid, in any order. Every id in ``groups`` must occur.
    batch_dims : {0, 1}
        1 compares the rows of item i with the centroids of item i.
    return_distance : bool
        Whether to return the distances too.
    n_nearest : int
        How many centroids to return for each row, nearest first; at most the smallest number of
        centroids in a group.
    n_threads, max_memory, device
        As in :func:`ddkern.quantize`.

    Returns
    -------
    assignment : array of int64, shape (n,), or (n, n_nearest) if ``n_nearest > 1``
        Rows of ``centroids`` (within the item for a batch), ordered by distance in real arithmetic
        on the stored values, the lower row first among exact ties.
    distance : array of float64, of the same shape
        Euclidean distances (not squared). Only with ``return_distance=True``.

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
    Rows in CUDA memory are worked on where they lie, as :func:`ddkern.quantize` describes, and the
    arrays that are returned lie there too. With ``device``, rows in CPU memory are brought to the
    devices some at a time, of a large group too.

    The comparison is made in the type of the centroids that ``x`` would have in
    :func:`ddkern.quantize`. Where that is float32 and ``centroids`` hold values that float32
    cannot represent, nothing is rounded: the rows are converted to float64 instead, a part that
    fits in ``max_memory`` at a time.

    Examples
    --------
    >>> import numpy as np, ddkern
    >>> ddkern.assign(np.array([[0.0], [4.0], [9.0]]), np.array([[1.0], [8.0]]))
    array([0, 0, 1])
    """
    problem = parse_problem(x, groups, batch_dims)
    devices = on_device.parse_device(device, problem.x)
    book = _parse_codebook(centroids, centroid_groups, groups is not None, problem)
    n_nearest = as_count("n_nearest", n_nearest)
    if n_nearest > int(book.counts.min()):
        g = int(np.argmin(book.counts))
        raise ValueError(
            f"n_nearest={n_nearest}, but {problem.name_group(g)} has {book.counts[g]} centroids; "
            "n_nearest must not exceed the number of centroids of any group"
        )
    options = {
        "n_nearest": n_nearest,
        "return_distance": bool(return_distance),
        "n_threads": as_n_threads(n_threads, problem.multiply_adds(book.counts)),
    }
    if devices:
        assignment, distance = _assign_on_devices(problem, book, options, devices, max_memory)
    elif isinstance(problem.x, DeviceArray):
        budget = on_device.workspace_bytes(problem.x.tensor.device, max_memory)
        assignment, distance = _assign_here(problem, book, options, budget)
    else:
        assignment, distance = _assign_here(problem, book, options, workspace_bytes(max_memory))
    shape = problem.rows_shape + ((n_nearest,) if n_nearest > 1 else ())
    wrapped = problem.x.wrap(assignment.reshape(shape))
    if distance is None:
        return wrapped
    return wrapped, problem.x.wrap(distance.reshape(shape))


@dataclass(frozen=True, slots=True, eq=False)
class _Codebook:
    """The centroids that are needed, group by group in the order of the problem's groups."""

    points: Any  # (m, n_features), C order, on the device of the rows
    in_row_type: bool  # as ``points`` are; otherwise they are float64 and the rows float32
    rows: NDArray[np.int64]  # (m,) which row of the caller's centroids; within the item for a batch
    counts: NDArray[np.int64]  # (n_groups,)

    @property
    def first(self) -> NDArray[np.int64]:
        """Where the centroids of each group begin."""
        return np.cumsum(self.counts) - self.counts


def _parse_codebook(
    centroids: ArrayLike, centroid_groups: ArrayLike | None, grouped: bool, problem: Problem
) -> _Codebook:
    if grouped != (centroid_groups is not None):
        given, absent = ("groups", "centroid_groups") if grouped else ("centroid_groups", "groups")
        raise ValueError(f"{given} is given without {absent}; they go together")
    own = problem.x.beside(centroids, "centroids")
    _check_centroid_shape(own.shape, problem)
    points = parse_centroids(own, problem.x.point_dtype, problem.n_features)
    in_row_type = own.like(points).point_dtype == problem.x.point_dtype
    if problem.batch is not None:
        k = own.shape[1]
        counts = np.full(problem.batch, k, np.int64)
        rows = np.tile(np.arange(k, dtype=np.int64), problem.batch)
        return _Codebook(points, in_row_type, rows, counts)
    if centroid_groups is None:
        rows = np.arange(len(points), dtype=np.int64)
        return _Codebook(points, in_row_type, rows, np.array([len(points)], np.int64))
    ids = parse_ids(centroid_groups, "centroid_groups", len(points), "row of centroids")
    rows, counts = _select_groups(partition_ids(ids), problem.partition)
    return _Codebook(points[problem.x.native(rows)], in_row_type, rows, counts)


def _check_centroid_shape(shape: tuple[int, ...], problem: Problem) -> None:
    leading = 1 if problem.batch is None else 2
    matches = (
        len(shape) >= leading
        and shape[leading:] == problem.feature_shape
        and shape[leading - 1] > 0
        and (problem.batch is None or shape[0] == problem.batch)
    )
    if not matches:
        first = "k" if problem.batch is None else f"{problem.batch}, k"
        rest = "".join(f", {size}" for size in problem.feature_shape)
        raise ValueError(
            f"centroids has shape {shape}; for this x it must be ({first}{rest}) with k >= 1"
        )


def _select_groups(
    own: Partition, wanted: Partition
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the centroids of the wanted groups, group by group, and how many each has."""
    position = np.searchsorted(own.ids, wanted.ids)
    known = position < len(own.ids)
    known[known] = own.ids[position[known]] == wanted.ids[known]
    if not known.all():
        raise ValueError(
            f"centroid_groups has no centroid of {name_groups('group', wanted.ids[~known])}, "
            "which occurs in groups"
        )
    order = np.arange(own.offsets[-1]) if own.order is None else own.order
    rows = np.concatenate([order[own.offsets[g] : own.offsets[g + 1]] for g in position])
    return rows, own.counts[position]


def _assign_here(
    problem: Problem, book: _Codebook, options: dict[str, Any], budget: int
) -> tuple[Any, Any]:
    """Assignment as rows of the caller's centroids, and distances; both (n, n_nearest)."""
    if book.in_row_type:
        return _assign_in_place(problem, book, {**options, "max_memory": budget})
    return _assign_upcast(problem, book, options, budget)


def _assign_on_devices(
    problem: Problem, book: _Codebook, options: dict[str, Any], devices: list[Any], max_memory: Any
) -> tuple[Any, Any]:
    """The same, with rows brought to the devices some at a time, and results to the host."""
    from ddkern.kmeans import shards

    shape = (problem.n_rows, options["n_nearest"])
    assignment = np.empty(shape, np.int64)
    distance = np.empty(shape, np.float64) if options["return_distance"] else None
    row_shards, budget = shards.split_rows(problem, devices, 24 * shape[1], max_memory)

    def work(number: int, shard: Shard, part: Problem, report: RecordProgress) -> None:
        del number
        counts = book.counts[shard.groups]
        begin = int(book.first[shard.groups.start])
        own = slice(begin, begin + int(counts.sum()))
        points = part.x.native(book.points[own])
        own_book = _Codebook(points, book.in_row_type, book.rows[own], counts)
        found, away = _assign_here(part, own_book, {**options, "progress": report}, budget)
        rows = shards.row_numbers(problem, shard)
        assignment[rows] = found.cpu().numpy()
        if distance is not None:
            distance[rows] = away.cpu().numpy()

    shards.work_on(problem, devices, row_shards, work, None)
    return assignment, distance


def _assign_in_place(problem: Problem, book: _Codebook, options: dict[str, Any]) -> tuple[Any, Any]:
    """The same, in the type of the rows."""
    arguments = {"centroids": book.points, "k": book.counts, "progress": None, **options}
    if isinstance(problem.x, DeviceArray):
        del arguments["n_threads"]
        found = on_device.assign(problem, **arguments)
    else:
        found = _core.assign(**problem.core_arguments(), **arguments)
    first = book.first if problem.batch is None else np.zeros(problem.n_groups, np.int64)
    places = problem.global_rows(found["assignment"], first)
    return problem.x.native(book.rows)[places], found["distance"]


def _assign_upcast(
    problem: Problem, book: _Codebook, options: dict[str, Any], budget: int
) -> tuple[Any, Any]:
    """The same, with the rows converted to float64 a part at a time."""
    n, m = problem.n_rows, options["n_nearest"]
    x = problem.x
    assignment = x.empty((n, m), np.int64)
    distance = x.empty((n, m), np.float64) if options["return_distance"] else None
    # Half of the budget for the converted rows, the rest for the kernels.
    part_rows = max(1, budget // 2 // (8 * problem.n_features))
    options = {**options, "max_memory": max(1, budget // 2)}
    offsets, order = problem.partition.offsets, problem.partition.order
    first = book.first
    for g in range(problem.n_groups):
        own = slice(int(first[g]), int(first[g] + book.counts[g]))
        sub_book = _Codebook(book.points[own], True, book.rows[own], book.counts[g : g + 1])
        for begin in range(int(offsets[g]), int(offsets[g + 1]), part_rows):
            end = min(begin + part_rows, int(offsets[g + 1]))
            rows = slice(begin, end) if order is None else x.native(order[begin:end])
            part = _float64_rows(problem, g, rows)
            nearest, part_distance = _assign_in_place(part, sub_book, options)
            assignment[rows] = nearest
            if distance is not None:
                distance[rows] = part_distance
    return assignment, distance


def _float64_rows(problem: Problem, g: int, rows: Any) -> Problem:
    """Some rows of group ``g`` as a problem of its own, in float64."""
    if problem.batch is None:
        part = problem.x.select(rows)
    else:
        first_row = g * problem.rows_shape[1]
        part = problem.x.select((g, slice(rows.start - first_row, rows.stop - first_row)))
    values = part.as_dtype(np.float64)
    whole = Partition(np.zeros(1, np.int64), None, np.array([0, len(values)], np.int64))
    return Problem(part.like(values), None, problem.feature_shape, whole)
