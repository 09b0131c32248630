# SPDX-License-Identifier: Apache-2.0
"""From the caller's arguments to the arrays that the extension module takes.

A call is one list of rows cut into groups. With ``groups`` the cut follows the ids, in any order;
without it there is one group, of id 0; with ``batch_dims=1`` every item is a group, and all have
id 0. Everything below speaks of that list only, so the three cases are told apart here and nowhere
else.

The rows stay where they are, on the host or on a device, and so do centroids that are passed in.
What has one entry a row or a group is brought to the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddkern.arrays import HostArray
from ddkern.checks import SEED_LIMIT, as_count, as_integer, as_seed
from ddkern.kmeans import device
from ddkern.kmeans.device_arrays import DeviceArray, ascending_runs, fetch
from ddkern.kmeans.options import draw_seed
from ddkern.typing import ArrayLike

__all__ = [
    "Partition",
    "Problem",
    "name_groups",
    "parse_centroids",
    "parse_ids",
    "parse_init_centroids",
    "parse_k",
    "parse_problem",
    "parse_random_state",
    "parse_sample_weight",
    "partition_ids",
    "require_finite",
    "require_rows",
]

# How many groups a message lists before it counts the rest.
_GROUPS_NAMED = 5


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Rows sorted by the id of their group.

    Attributes
    ----------
    ids : ndarray of int64, shape (n_groups,)
        Ascending.
    order : ndarray of int64, shape (n,), or None
        Row numbers by ascending id, ascending within a group; None where the rows lie that way
        already.
    offsets : ndarray of int64, shape (n_groups + 1,)
        Group ``g`` is ``order[offsets[g]:offsets[g + 1]]``.
    """

    ids: NDArray[np.int64]
    order: NDArray[np.int64] | None
    offsets: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows of each group."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """The data of one call.

    Attributes
    ----------
    x : HostArray or DeviceArray, shape (n, *feature) or (b, n, *feature)
        The caller's memory. Scalar points have a feature axis of length 1 here.
    batch : int or None
        Number of items with ``batch_dims=1``; None without.
    feature_shape : tuple of int
        The shape of one point as the caller sees it; ``()`` for scalar points.
    partition : Partition
        Of all rows; the items of a batch follow one another.
    """

    x: HostArray | DeviceArray
    batch: int | None
    feature_shape: tuple[int, ...]
    partition: Partition

    @property
    def n_rows(self) -> int:
        """Rows of all groups."""
        return int(self.partition.offsets[-1])

    @property
    def n_groups(self) -> int:
        """Groups, or items of a batch."""
        return len(self.partition.ids)

    @property
    def n_features(self) -> int:
        """Numbers in a point."""
        return math.prod(self.feature_shape)

    @property
    def rows_shape(self) -> tuple[int, ...]:
        """Shape of an array with one entry a row, as the caller sees it."""
        return (self.n_rows,) if self.batch is None else (self.batch, self.n_rows // self.batch)

    def multiply_adds(self, k: NDArray[np.int64]) -> int:
        """The products that comparing every row with all ``k`` centroids of its group takes."""
        return int(np.dot(self.partition.counts, k)) * self.n_features

    def per_centroid_shape(self, k: NDArray[np.int64]) -> tuple[int, ...]:
        """Shape of an array with one entry a centroid, as the caller sees it."""
        return (int(k.sum()),) if self.batch is None else (self.batch, int(k[0]))

    def core_arguments(self) -> dict[str, Any]:
        """The arguments that every function of the extension module for the CPU takes."""
        assert isinstance(self.x, HostArray)  # noqa: S101
        return {
            "x": self.x.values,
            "bfloat16": self.x.bfloat16,
            "batch_dims": 0 if self.batch is None else 1,
            "order": self.partition.order,
            "offsets": self.partition.offsets,
        }

    def global_rows(self, within_group: Any, first_centroid: NDArray[np.int64]) -> Any:
        """Turn indices of centroids within each row's group into rows of ``centroids``, in place.

        Parameters
        ----------
        within_group : ndarray or tensor of int64, shape (n, m)
        first_centroid : ndarray of int64, shape (n_groups,)
            Where each group's centroids begin. Items of a batch have an axis of their own, so
            there the index within the item is the answer already.
        """
        if self.batch is None and self.n_groups > 1:
            shift = self.x.repeat(first_centroid, self.partition.counts)[:, None]
            if self.partition.order is None:
                within_group += shift
            else:
                within_group[self.x.native(self.partition.order)] += shift
        return within_group

    def name_group(self, position: int) -> str:
        """What messages call the group at ``position``."""
        if self.batch is not None:
            return f"item {position}"
        return f"group {self.partition.ids[position]}"

    def name_groups(self, mask: NDArray[np.bool_]) -> str:
        """What messages call the groups where ``mask`` holds."""
        if self.batch is not None:
            return name_groups("item", np.flatnonzero(mask))
        return name_groups("group", self.partition.ids[mask])


def name_groups(noun: str, ids: NDArray[np.int64]) -> str:
    """``"group 3"``, ``"groups 3, 5 and 8"``, ``"groups 1, 2, 3, 4, 5 and 12 more"``."""
    named = [str(i) for i in ids[:_GROUPS_NAMED]]
    if len(ids) == 1:
        return f"{noun} {named[0]}"
    if len(ids) > _GROUPS_NAMED:
        return f"{noun}s {', '.join(named)} and {len(ids) - _GROUPS_NAMED} more"
    return f"{noun}s {', '.join(named[:-1])} and {named[-1]}"


def parse_problem(x: ArrayLike, groups: ArrayLike | None, batch_dims: int) -> Problem:
    """Check ``x``, ``groups`` and ``batch_dims`` and cut the rows into groups."""
    rule = "it must be 0 or 1"
    batch_dims = as_integer("batch_dims", batch_dims, rule)
    if batch_dims not in (0, 1):
        raise ValueError(f"batch_dims={batch_dims}; {rule}")
    if batch_dims == 1 and groups is not None:
        raise ValueError(
            "groups cannot be combined with batch_dims=1, where every item is a group of its own; "
            "pass the rows of all items as (n, *feature) with groups instead"
        )
    seen = device.see(x, "x")
    shape = seen.shape
    axes = "(b, n, *feature)" if batch_dims else "(n, *feature)"
    if len(shape) < 1 + batch_dims:
        raise ValueError(f"x has shape {shape}; with batch_dims={batch_dims} it must be {axes}")
    if math.prod(shape) == 0:
        raise ValueError(f"x has shape {shape}, which is empty; no axis of {axes} may be 0")
    feature_shape = shape[1 + batch_dims :]
    if not feature_shape:
        seen = seen.select((..., None))
    if batch_dims:
        b, n = shape[:2]
        items = Partition(np.zeros(b, np.int64), None, np.arange(b + 1, dtype=np.int64) * n)
        return Problem(seen, b, feature_shape, items)
    if groups is None:
        offsets = np.array([0, shape[0]], np.int64)
        return Problem(seen, None, feature_shape, Partition(np.zeros(1, np.int64), None, offsets))
    runs = ascending_runs(groups, "groups", shape[0])
    if runs is not None:
        ids, counts = runs
        return Problem(seen, None, feature_shape, Partition(ids, None, _offsets(counts)))
    every_id = parse_ids(groups, "groups", shape[0], "row of x")
    return Problem(seen, None, feature_shape, partition_ids(every_id))


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def parse_ids(ids: ArrayLike, name: str, length: int, counted: str) -> NDArray[np.int64]:
    """``ids`` as int64 of shape (length,); ``counted`` is what messages say there is one for."""
    host = fetch(ids, name)
    rule = f"it must hold one integer for every {counted}, in shape ({length},)"
    if not host.is_integer:
        raise TypeError(f"{name} has dtype {host.dtype_name}; {rule}")
    if host.values.shape != (length,):
        raise ValueError(f"{name} has shape {host.values.shape}; {rule}")
    if host.values.dtype == np.uint64 and int(host.values.max()) >= 1 << 63:
        raise ValueError(f"{name} holds {int(host.values.max())}; ids must fit in int64")
    return host.values.astype(np.int64, copy=False)


def partition_ids(ids: NDArray[np.int64]) -> Partition:
    """Sort rows by id, stably. ``ids`` has at least one entry."""
    order: NDArray[np.int64] | None = None
    if not bool(np.all(ids[1:] >= ids[:-1])):
        order = np.argsort(ids, kind="stable").astype(np.int64, copy=False)
        ids = ids[order]
    starts = np.concatenate(([0], np.flatnonzero(ids[1:] != ids[:-1]) + 1)).astype(np.int64)
    offsets = np.append(starts, np.int64(len(ids)))
    return Partition(np.ascontiguousarray(ids[starts]), order, offsets)


def parse_k(k: Any, problem: Problem) -> NDArray[np.int64]:
    """``k`` as one count a group, each at least 1."""
    ids = problem.partition.ids
    if isinstance(k, Mapping):
        if problem.batch is not None:
            raise TypeError("k is a mapping; with batch_dims=1 it must be one integer")
        counts = _counts_of_mapping(k, ids)
    elif np.ndim(k) == 0:
        counts = [as_count("k", k)] * len(ids)
    else:
        counts = _counts_of_sequence(k, problem)
    return np.array(counts, np.int64)


def _counts_of_mapping(k: Mapping[Any, Any], ids: NDArray[np.int64]) -> list[int]:
    rule = "the keys of a mapping k must be the integer ids of groups"
    by_id = {as_integer("a key of k", key, rule): value for key, value in k.items()}
    missing = np.array([i for i in ids.tolist() if i not in by_id], np.int64)
    if len(missing):
        raise ValueError(f"k has no entry for {name_groups('group', missing)}")
    unknown = np.array(sorted(set(by_id) - set(ids.tolist())), object)
    if len(unknown):
        raise ValueError(f"k has an entry for {name_groups('group', unknown)}, without rows in x")
    return [as_count(f"k[{i}]", by_id[i]) for i in ids.tolist()]


def _counts_of_sequence(k: ArrayLike, problem: Problem) -> list[int]:
    if problem.batch is not None:
        raise TypeError("k is a sequence; with batch_dims=1 it must be one integer")
    host = fetch(k, "k")
    rule = (
        "it must be an integer, a mapping from group id to integer, or one integer for each of "
        f"the {problem.n_groups} groups in ascending order of their ids"
    )
    if not host.is_integer:
        raise TypeError(f"k has dtype {host.dtype_name}; {rule}")
    if host.values.shape != (problem.n_groups,):
        raise ValueError(f"k has shape {host.values.shape}; {rule}")
    return [
        as_count(f"k[{position}]", count) for position, count in enumerate(host.values.tolist())
    ]


def require_rows(k: NDArray[np.int64], weight: NDArray[np.float64] | None, p: Problem) -> None:
    """Every group must have at least ``k`` rows, counting those of positive weight only."""
    available = p.partition.counts
    kind = "rows"
    if weight is not None:
        positive = weight > 0
        if p.partition.order is not None:
            positive = positive[p.partition.order]
        available = np.add.reduceat(positive, p.partition.offsets[:-1], dtype=np.int64)
        kind = "rows of positive weight"
        if not available.all():
            g = int(np.argmin(available))
            raise ValueError(
                f"sample_weight is 0 for every row of {p.name_group(g)}; "
                "every group needs a row of positive weight"
            )
    if (k > available).any():
        g = int(np.argmax(k > available))
        raise ValueError(
            f"k={k[g]} for {p.name_group(g)}, which has {available[g]} {kind}; "
            f"k must not exceed the number of {kind}"
        )


def parse_sample_weight(weight: ArrayLike | None, problem: Problem) -> NDArray[np.float64] | None:
    """``sample_weight`` as float64 of shape (n,), finite and not negative."""
    if weight is None:
        return None
    host = fetch(weight, "sample_weight")
    if host.values.shape != problem.rows_shape:
        raise ValueError(
            f"sample_weight has shape {host.values.shape}; it must hold one number for every row "
            f"of x, in shape {problem.rows_shape}"
        )
    values = host.as_dtype(np.float64).reshape(-1)
    # One comparison finds negative numbers, NaN and infinity alike.
    valid = (values >= 0) & (values < np.inf)
    if not valid.all():
        row = int(np.argmin(valid))
        at = (
            row
            if problem.batch is None
            else tuple(int(i) for i in np.unravel_index(row, problem.rows_shape))
        )
        raise ValueError(
            f"sample_weight[{at}] is {values[row]}; weights must be finite and at least 0"
        )
    return values


def parse_random_state(
    random_state: Any, problem: Problem
) -> tuple[int | NDArray[np.uint64], NDArray[np.uint64]]:
    """``random_state`` as it is recorded in the result, and as one seed a group."""
    if random_state is None or np.ndim(random_state) == 0:
        seed = draw_seed() if random_state is None else as_seed("random_state", random_state)
        return seed, np.full(problem.n_groups, seed, np.uint64)
    if problem.batch is None:
        raise TypeError(
            "random_state is an array, which needs batch_dims=1; without it, it must be None or "
            "an integer: the stream of a group follows from the seed and the group's id"
        )
    if isinstance(random_state, (list, tuple)):
        # numpy makes float64 of a list that mixes numbers below and above 2**63.
        random_state = np.array(
            [as_seed(f"random_state[{i}]", seed) for i, seed in enumerate(random_state)], np.uint64
        )
    host = fetch(random_state, "random_state")
    rule = f"an array of seeds must hold one integer for each of the {problem.batch} items"
    if not host.is_integer:
        raise TypeError(f"random_state has dtype {host.dtype_name}; {rule}")
    if host.values.shape != (problem.batch,):
        raise ValueError(f"random_state has shape {host.values.shape}; {rule}")
    if (host.values < 0).any():
        raise ValueError(
            f"random_state holds {host.values.min()}; seeds must lie in [0, {SEED_LIMIT})"
        )
    seeds = host.values.astype(np.uint64)
    return seeds, seeds


def parse_init_centroids(init: ArrayLike, problem: Problem, k: NDArray[np.int64]) -> Any:
    """An array ``init`` as (sum_k, n_features) of the centroids' type, finite, beside ``x``."""
    shape = problem.per_centroid_shape(k) + problem.feature_shape
    given = problem.x.beside(init, "init")
    if given.shape != shape:
        raise ValueError(
            f"init has shape {given.shape}; an array must have the shape of the centroids, {shape}"
        )
    values = given.as_dtype(problem.x.point_dtype).reshape(-1, problem.n_features)
    where = f"in {problem.x.point_dtype.name}, the type of the centroids"
    require_finite(given.finite_rows(values), "init", where)
    return values


def require_finite(finite: NDArray[np.bool_], name: str, where: str) -> None:
    """Every row must be finite; ``where`` says in which form."""
    if not finite.all():
        raise ValueError(
            f"{name} holds NaN or infinity in row {int(np.argmin(finite))} ({where}); "
            "every value must be finite"
        )


def parse_centroids(
    centroids: HostArray | DeviceArray, dtype: np.dtype[Any], n_features: int
) -> Any:
    """Centroids as (m, n_features), finite: of ``dtype`` if that holds them exactly, else float64.

    Raises
    ------
    ValueError
        If they hold NaN, infinity, or an integer that float64 may not hold either.
    """
    own = centroids.as_dtype(centroids.point_dtype).reshape(-1, n_features)
    require_finite(centroids.finite_rows(own), "centroids", f"as {centroids.point_dtype.name}")
    if centroids.dtype_name in ("int64", "uint64"):
        largest = centroids.largest_magnitude()
        if largest > 1 << 53:
            raise ValueError(f"centroids hold {largest}; integers must lie within 2**53 of 0")
    return centroids.narrowed(own, dtype)
