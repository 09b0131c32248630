# SPDX-License-Identifier: Apache-2.0
"""assign: the nearest centroids of every row, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ddkern import _core
from ddkern.arrays import HostArray, to_host
from ddkern.checks import as_count
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
from ddkern.typing import Array, ArrayLike

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
) -> Array | tuple[Array, Array]:
    """Find the nearest centroid, or the nearest few, of every row, exactly.

    Parameters
    ----------
    x : array, shape (n, *feature), or (b, n, *feature) with ``batch_dims=1``
        The rows, as in :func:`ddkern.quantize`.
    centroids : array, shape (K, *feature), or (b, k, *feature) with ``batch_dims=1``
        Finite values of any supported dtype.
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
    n_threads, max_memory
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

    Notes
    -----
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
    book = _parse_codebook(centroids, centroid_groups, groups is not None, problem)
    n_nearest = as_count("n_nearest", n_nearest)
    if n_nearest > int(book.counts.min()):
        g = int(np.argmin(book.counts))
        raise ValueError(
            f"n_nearest={n_nearest}, but {problem.name_group(g)} has {book.counts[g]} centroids; "
            "n_nearest must not exceed the number of centroids of any group"
        )
    budget = workspace_bytes(max_memory)
    options = {
        "n_nearest": n_nearest,
        "return_distance": bool(return_distance),
        "n_threads": as_n_threads(n_threads, problem.multiply_adds(book.counts)),
        "max_memory": budget,
    }
    if book.points.dtype == problem.x.point_dtype:
        assignment, distance = _assign_in_place(problem, book, options)
    else:
        assignment, distance = _assign_upcast(problem, book, options, budget)
    shape = problem.rows_shape + ((n_nearest,) if n_nearest > 1 else ())
    wrapped = problem.x.wrap(assignment.reshape(shape))
    if distance is None:
        return wrapped
    return wrapped, problem.x.wrap(distance.reshape(shape))


@dataclass(frozen=True, slots=True, eq=False)
class _Codebook:
    """The centroids that are needed, group by group in the order of the problem's groups."""

    points: NDArray[Any]  # (m, n_features), C order
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
    host = to_host(centroids, "centroids")
    _check_centroid_shape(host, problem)
    points = parse_centroids(host, problem.x.point_dtype, problem.n_features)
    if problem.batch is not None:
        k = host.values.shape[1]
        counts = np.full(problem.batch, k, np.int64)
        return _Codebook(points, np.tile(np.arange(k, dtype=np.int64), problem.batch), counts)
    if centroid_groups is None:
        return _Codebook(points, np.arange(len(points)), np.array([len(points)], np.int64))
    ids = parse_ids(centroid_groups, "centroid_groups", len(points), "row of centroids")
    return _select_groups(points, partition_ids(ids), problem.partition)


def _check_centroid_shape(centroids: HostArray, problem: Problem) -> None:
    shape = centroids.values.shape
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


def _select_groups(points: NDArray[Any], own: Partition, wanted: Partition) -> _Codebook:
    position = np.searchsorted(own.ids, wanted.ids)
    known = position < len(own.ids)
    known[known] = own.ids[position[known]] == wanted.ids[known]
    if not known.all():
        raise ValueError(
            f"centroid_groups has no centroid of {name_groups('group', wanted.ids[~known])}, "
            "which occurs in groups"
        )
    order = np.arange(len(points)) if own.order is None else own.order
    rows = np.concatenate([order[own.offsets[g] : own.offsets[g + 1]] for g in position])
    return _Codebook(np.ascontiguousarray(points[rows]), rows, own.counts[position])


def _assign_in_place(
    problem: Problem, book: _Codebook, options: dict[str, Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Assignment as rows of the caller's centroids, and distances; both (n, n_nearest)."""
    found = _core.assign(
        **problem.core_arguments(),
        centroids=book.points,
        k=book.counts,
        progress=None,
        **options,
    )
    first = book.first if problem.batch is None else np.zeros(problem.n_groups, np.int64)
    return book.rows[problem.global_rows(found["assignment"], first)], found["distance"]


def _assign_upcast(
    problem: Problem, book: _Codebook, options: dict[str, Any], budget: int
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """The same, with the rows converted to float64 a part at a time."""
    n, m = problem.n_rows, options["n_nearest"]
    assignment = np.empty((n, m), np.int64)
    distance = np.empty((n, m)) if options["return_distance"] else None
    # Half of the budget for the converted rows, the rest for the kernels.
    part_rows = max(1, budget // 2 // (8 * problem.n_features))
    options = {**options, "max_memory": max(1, budget // 2)}
    offsets, order = problem.partition.offsets, problem.partition.order
    first = book.first
    for g in range(problem.n_groups):
        own = slice(int(first[g]), int(first[g] + book.counts[g]))
        sub_book = _Codebook(book.points[own], book.rows[own], book.counts[g : g + 1])
        for begin in range(int(offsets[g]), int(offsets[g + 1]), part_rows):
            end = min(begin + part_rows, int(offsets[g + 1]))
            rows = slice(begin, end) if order is None else order[begin:end]
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
    return Problem(HostArray(values, False, part.wrap), None, problem.feature_shape, whole)
