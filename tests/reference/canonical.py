# SPDX-License-Identifier: Apache-2.0
"""The canonical arithmetic of the quantizer in plain numpy.

The sections are those of docs/numerics.md, in its order and with its names. The module shares
nothing with the engine: the float32 fused multiply-add is emulated, the random numbers are Python
integers, and the assignments come from the oracle in `oracle.py`.

A group is reduced to its rows of positive weight right after section 2, so that a row of weight 0
takes part in nothing but the assignments; it cannot hold up the stopping rule either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference import oracle

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# --- 1. Stored values -----------------------------------------------------------------------------


def stored(x: NDArray[Any]) -> NDArray[Any]:
    """Return the values of `x` in the type that centroids are stored in."""
    wide = x.dtype == np.float64 or (x.dtype.kind in "iu" and x.dtype.itemsize >= 4)
    return x.astype(np.float64 if wide else np.float32)


def exponent(value: float) -> int:
    """Return the e of value = f * 2^e with 0.5 <= f < 1, and 0 for 0."""
    return math.frexp(value)[1]


def largest_exponent(values: NDArray[Any]) -> int:
    """Return the exponent of the largest magnitude in `values`."""
    return exponent(float(np.abs(values).max()))


def grid_exponent(distances: FloatArray) -> int:
    """Return the exponent that fixes the grid of `distances`; below 2^-900 they count as 0."""
    return max(largest_exponent(distances), -900)


# --- 2. Weights -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """Mass units of the rows of one group.

    Attributes
    ----------
    units : int64 (n,)
        u_i, the integer masses.
    canonical : float64 (n,) or None
        w_i = u_i * 2^-t; None when the caller gave no weights.
    t : int
        Number of bits kept of every value that is summed.
    total : float
        Total weight of the group in the caller's units.
    """

    units: IntArray
    canonical: FloatArray | None
    t: int
    total: float

    def weighted(self, q: NDArray[Any]) -> IntArray:
        """Return A_i(q_i) for integers `q` (n,) or (n, m): section 4."""
        if self.canonical is None:
            return np.asarray(q, np.int64)
        w = self.canonical.reshape((-1,) + (1,) * (q.ndim - 1))
        return np.rint(w * q.astype(np.float64)).astype(np.int64)

    def mean(self, q: NDArray[Any], rows: NDArray[Any] | slice = slice(None)) -> FloatArray:
        """Return the weighted mean of integers `q` (n,) or (n, m) over `rows`: section 4."""
        total = self.weighted(q)[rows].sum(axis=0).astype(np.float64)
        mass = np.float64(self.units[rows].sum())
        mean: FloatArray = total / mass
        return mean if self.canonical is None else np.ldexp(mean, self.t)


def canonical_weights(n: int, sample_weight: NDArray[np.float64] | None) -> Weights:
    """Return the canonical weights of a group of `n` rows."""
    if sample_weight is None:
        bits = max(22, (n - 1).bit_length())
        return Weights(np.ones(n, np.int64), None, 62 - bits, float(n))
    a_max = float(sample_weight.max())
    b = np.ldexp(sample_weight, -exponent(a_max))
    budget = sum(int(v) for v in np.floor(np.ldexp(b, 40)))
    n_raw = int((sample_weight > 0).sum())
    bits = max(22, (n_raw - 1).bit_length())
    t = 62 - bits
    scale = bits + 40 - budget.bit_length()
    units = np.rint(np.ldexp(b, scale + t)).astype(np.int64)
    canonical = np.ldexp(units.astype(np.float64), -t)
    total = math.ldexp(float(units.sum()), exponent(a_max) - scale - t)
    return Weights(units, canonical, t, total)


# --- 3. to 5. One group: centring, sums, centroids ------------------------------------------------


class Group:
    """One group's canonical data, over its rows of positive weight.

    Parameters
    ----------
    x : (n, D) array
        Rows in ascending order of their index, in any accepted type.
    sample_weight : float64 (n,), optional
        Weights, not negative, not all zero.

    Attributes
    ----------
    every_row : (n, D) array
        Stored values of all rows, those of weight 0 included.
    kept : int64 (n_pos,)
        Index of each row of positive weight in `every_row`; everything below is over these.
    x, z, y64, y32, q, nrm : arrays
        As in sections 3, 4 and 6.
    """

    def __init__(self, x: NDArray[Any], sample_weight: NDArray[np.float64] | None = None) -> None:
        self.every_row = stored(x)
        weights = canonical_weights(len(x), sample_weight)
        self.kept = np.flatnonzero(weights.units > 0)
        self.weights = replace(
            weights,
            units=weights.units[self.kept],
            canonical=None if weights.canonical is None else weights.canonical[self.kept],
        )
        self.x = self.every_row[self.kept]
        dtype, t = self.x.dtype, self.weights.t

        self.e_x = largest_exponent(self.x)
        self.z = np.ldexp(self.x.astype(np.float64), -self.e_x)
        mu = np.ldexp(self.weights.mean(np.rint(np.ldexp(self.z, 20))), -20)
        if np.all(self.x == np.rint(self.x)) and np.abs(self.x).max() <= 256:
            self.m = np.ldexp(np.rint(np.ldexp(mu, self.e_x)), -self.e_x).astype(dtype)
        else:
            self.m = mu.astype(dtype)

        self.y64 = self.z - self.m.astype(np.float64)
        if dtype == np.float32:
            self.y32 = self.z.astype(np.float32) - self.m
        else:
            self.y32 = self.y64.astype(np.float32)
        self.e_y = largest_exponent(self.y32)
        self.q = np.rint(np.ldexp(self.y64, t - self.e_y))
        self.nrm = norm2(self.y64)
        self.self_dots = chain_dot(self.y32, self.y32)

    def mass(self, members: NDArray[np.bool_]) -> int:
        """Return M_k of the rows marked in `members`."""
        return int(self.weights.units[members].sum())

    def mean_deviation(self, members: NDArray[np.bool_] | slice) -> FloatArray:
        """Return qbar * 2^(e_y - t): the mean of the centred, scaled rows in `members`."""
        return np.ldexp(self.weights.mean(self.q, members), self.e_y - self.weights.t)

    def centroid(self, members: NDArray[np.bool_]) -> NDArray[Any]:
        """Return the stored centroid of a cell of positive mass: section 5."""
        cell = self.x[members]
        if np.all(cell == cell[0]):
            return cell[0]
        mean = np.ldexp(self.mean_deviation(members) + self.m.astype(np.float64), self.e_x)
        return mean.astype(self.x.dtype)

    # --- 6. Distances

    def d64(self, a: NDArray[Any], b: NDArray[Any]) -> FloatArray:
        """Return the float64 squared distance, in scaled units, between stored values."""
        return norm2(
            np.ldexp(a.astype(np.float64), -self.e_x) - np.ldexp(b.astype(np.float64), -self.e_x)
        )

    def d64_to_row(self, row: int) -> FloatArray:
        """Return d64 from every row to `row`."""
        return self.d64(self.x, self.x[row])

    def d32_to_row(self, row: int) -> FloatArray:
        """Return d32 from every row to `row`."""
        dots = chain_dot(self.y32, self.y32[row])
        own = self.self_dots.astype(np.float64)
        return np.maximum(0.0, (own - 2.0 * dots.astype(np.float64)) + own[row])

    def equals(self, row: int) -> NDArray[np.bool_]:
        """Mark the rows equal to `row` as numbers."""
        return np.all(self.x == self.x[row], axis=1)


def norm2(r: FloatArray) -> FloatArray:
    """Return the sum of squares over the last axis: 16 lanes, then a tree over them."""
    lanes = np.zeros((*r.shape[:-1], 16))
    for start in range(0, r.shape[-1], 16):
        part = r[..., start : start + 16]
        lanes[..., : part.shape[-1]] += part * part
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half : 2 * half]
    return lanes[..., 0]


def fma32(
    a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return a * b + c with one rounding to float32.

    The product of two float32 is exact in float64. The float64 sum is rounded to odd: an inexact
    result whose last bit is 0 moves one step towards the exact sum. Rounding that to float32 gives
    the same value as rounding the exact sum.

    References
    ----------
    S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms
    using rounding to odd", IEEE Transactions on Computers 57(4), 2008.
    """
    product = a.astype(np.float64) * b.astype(np.float64)
    addend = c.astype(np.float64)
    total = np.asarray(product + addend)
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    bits = total.view(np.int64).copy()
    move = (error != 0) & (bits & 1 == 0)
    bits += np.where(move, np.where((error > 0) == (total > 0), 1, -1), 0)
    rounded: NDArray[np.float32] = bits.view(np.float64).astype(np.float32)
    return rounded


def chain_dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return g(a, b) over the last axis: one chain of float32 fused multiply-adds, ascending."""
    a, b = np.broadcast_arrays(a, b)
    total = np.zeros(a.shape[:-1], np.float32)
    for j in range(a.shape[-1]):
        total = fma32(a[..., j], b[..., j], total)
    return total


# --- 7. Random numbers ----------------------------------------------------------------------------


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return one block of Philox-4x32-10.

    References
    ----------
    J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = (k0 + 0x9E3779B9) % (1 << 32)
        k1 = (k1 + 0xBB67AE85) % (1 << 32)
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Stream:
    """The draws of one restart of one group."""

    seed: int
    group_id: int
    restart: int

    def uniform(self, step: int, trial: int) -> float:
        """Return u in [0, 1)."""
        group = self.group_id % (1 << 64)
        counter = (step, self.restart * 65536 + trial, group % (1 << 32), group >> 32)
        r0, r1, _, _ = philox(counter, (self.seed % (1 << 32), self.seed >> 32))
        return ((r0 << 32 | r1) >> 11) * 2.0**-53

    def draw(self, masses: IntArray, step: int, trial: int) -> int:
        """Return the index drawn from integer `masses` whose total is positive."""
        cumulative = np.cumsum(masses)
        total = int(cumulative[-1])
        tau = min(math.floor(self.uniform(step, trial) * float(total)), total - 1)
        return int(np.searchsorted(cumulative, tau, side="right"))


# --- 8. Seeding -----------------------------------------------------------------------------------


def seed_kmeans_plus_plus(group: Group, k: int, stream: Stream) -> list[int]:
    """Return the rows (indices into `group.x`) that greedy k-means++ chooses."""
    units = group.weights.units
    n_trials = 2 + math.floor(math.log(k))
    distance_to = group.d32_to_row
    seeds = [stream.draw(units, step=0, trial=0)]
    closest = distance_to(seeds[0])
    taken = group.equals(seeds[0])
    for step in range(1, k):
        if taken.all():
            seeds.append(stream.draw(units, step, trial=0))
            continue
        masses, e = potential_terms(group, closest)
        if masses.sum() == 0:
            distance_to = group.d64_to_row
            closest = np.min([distance_to(row) for row in seeds], axis=0)
            masses, e = potential_terms(group, closest)
        if masses.sum() == 0:
            seed = int(np.flatnonzero(~taken)[0])
            closest = np.minimum(closest, distance_to(seed))
        else:
            trials = [stream.draw(masses, step, trial) for trial in range(n_trials)]
            news = [np.minimum(closest, distance_to(row)) for row in trials]
            potentials = [int(potential_terms(group, new, e)[0].sum()) for new in news]
            best = potentials.index(min(potentials))
            seed, closest = trials[best], news[best]
        seeds.append(seed)
        taken |= group.equals(seed)
    return seeds


def potential_terms(
    group: Group, closest: FloatArray, e: int | None = None
) -> tuple[IntArray, int]:
    """Return A_i(RN(closest_i * 2^(t - e))) and `e`, by default that of the largest."""
    if e is None:
        e = grid_exponent(closest)
    return group.weights.weighted(np.rint(np.ldexp(closest, group.weights.t - e))), e


def seed_random(group: Group, k: int, stream: Stream) -> list[int]:
    """Return rows (indices into `group.x`) drawn without repeating a value while others remain."""
    units = group.weights.units
    taken = np.zeros(len(units), bool)
    seeds = []
    for step in range(k):
        seed = stream.draw(units if taken.all() else np.where(taken, 0, units), step, trial=0)
        seeds.append(seed)
        taken |= group.equals(seed)
    return seeds


# --- 9. Lloyd -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """What `fit` returns for one group; the names are those of the engine's result."""

    centroids: NDArray[Any]
    weights: FloatArray
    assignment: IntArray
    distortion: float
    inertia: float
    distortion_history: FloatArray
    n_iter: int
    converged: bool
    cells_reseeded: int
    seeds: IntArray | None
    restart: int = 0


def lloyd(group: Group, start: NDArray[Any], max_iter: int, tol: float) -> Fit:
    """Iterate from the stored centroids `start` (k, D) and report: sections 9 and 10."""
    k = len(start)
    threshold = tol * variance(group)
    history = []
    n_reseeded = 0
    centroids, assignment = start, oracle.nearest(group.every_row, start)
    for it in range(1, max_iter + 100 + k + 1):
        history.append(partition_distortion(group, assignment, k))
        previous, previous_assignment = centroids, assignment
        centroids, reseeded = updated_centroids(group, previous, previous_assignment)
        assignment = oracle.nearest(group.every_row, centroids)
        shift = 0.0
        for moved in group.d64(centroids, previous):
            shift += float(moved)
        converged = not reseeded and (
            np.array_equal(assignment[group.kept], previous_assignment[group.kept])
            or shift <= threshold
        )
        n_reseeded += reseeded
        if (converged or it >= max_iter) and not has_repairable_cell(group, centroids, assignment):
            break
    distortion = final_distortion(group, centroids, assignment)
    masses = np.array([group.mass(members) for members in cells(group, assignment, k)])
    return Fit(
        centroids=centroids,
        weights=masses.astype(np.float64) / np.float64(masses.sum()),
        assignment=assignment,
        distortion=distortion,
        inertia=distortion * group.weights.total,
        distortion_history=np.array(history),
        n_iter=it,
        converged=bool(converged),
        cells_reseeded=n_reseeded,
        seeds=None,
    )


def cells(group: Group, assignment: IntArray, k: int) -> Iterator[NDArray[np.bool_]]:
    """Yield, for each of `k` cells, which rows of positive weight it holds."""
    own = assignment[group.kept]
    for cell in range(k):
        yield own == cell


def updated_centroids(
    group: Group, previous: NDArray[Any], assignment: IntArray
) -> tuple[NDArray[Any], int]:
    """Return the next centroids, empty cells repaired, and how many cells were repaired."""
    centroids = previous.copy()
    empty = []
    for cell, members in enumerate(cells(group, assignment, len(previous))):
        if members.any():
            centroids[cell] = group.centroid(members)
        else:
            empty.append(cell)
    n_reseeded = 0
    distances = distances_to_own(group, previous, assignment)
    for cell in empty:
        row = int(np.argmax(distances))
        if distances[row] == 0:
            break
        centroids[cell] = group.x[row]
        distances = np.minimum(distances, group.d64_to_row(row))
        n_reseeded += 1
    return centroids, n_reseeded


def distances_to_own(group: Group, centroids: NDArray[Any], assignment: IntArray) -> FloatArray:
    """Return d64 from each row of positive weight to the centroid it is assigned to."""
    return group.d64(group.x, centroids[assignment[group.kept]])


def has_repairable_cell(group: Group, centroids: NDArray[Any], assignment: IntArray) -> bool:
    """Tell whether a cell is empty while some row of positive weight is off its centroid."""
    if all(members.any() for members in cells(group, assignment, len(centroids))):
        return False
    return bool(np.any(distances_to_own(group, centroids, assignment) > 0))


def quantized_mean(group: Group, values: FloatArray) -> np.float64:
    """Return the weighted mean of `values`, each rounded to t bits below the largest."""
    t, e = group.weights.t, grid_exponent(values)
    return np.float64(np.ldexp(group.weights.mean(np.rint(np.ldexp(values, t - e))), e - t))


def variance(group: Group) -> float:
    """Return V, the mean over features of the weighted variance, in scaled units."""
    spread = quantized_mean(group, group.nrm) - norm2(group.mean_deviation(slice(None)))
    return max(0.0, float(spread)) / group.x.shape[1]


def partition_distortion(group: Group, assignment: IntArray, k: int) -> float:
    """Return the distortion of a partition about the means of its cells."""
    return float(np.ldexp(max(0.0, spread_within(group, assignment, k)), 2 * group.e_x))


def spread_within(group: Group, assignment: IntArray, k: int) -> float:
    """Return the weighted mean squared distance to the means of the cells, by subtraction."""
    total = float(group.weights.units.sum())
    explained = 0.0
    for members in cells(group, assignment, k):
        if members.any():
            share = float(group.mass(members)) / total
            explained += share * float(norm2(group.mean_deviation(members)))
    return float(quantized_mean(group, group.nrm)) - explained


def final_distortion(group: Group, centroids: NDArray[Any], assignment: IntArray) -> float:
    """Return the distortion of stored centroids and their assignment: section 10."""
    k = len(centroids)
    within = spread_within(group, assignment, k)
    if within < float(quantized_mean(group, group.nrm)) / 8:
        distances = distances_to_own(group, centroids, assignment)
        return float(np.ldexp(quantized_mean(group, distances), 2 * group.e_x))
    total = float(group.weights.units.sum())
    off = 0.0
    for centroid, members in zip(centroids, cells(group, assignment, k), strict=True):
        if members.any():
            centred = np.ldexp(centroid.astype(np.float64), -group.e_x) - group.m
            share = float(group.mass(members)) / total
            off += share * float(norm2(centred - group.mean_deviation(members)))
    return float(np.ldexp(within + off, 2 * group.e_x))


def euclidean_distances(x: NDArray[Any], c: NDArray[Any]) -> FloatArray:
    """Return what assign reports from row(s) `x` to centroids `c`: section 10."""
    difference = stored(x).astype(np.float64) - stored(c).astype(np.float64)
    with np.errstate(over="ignore"):
        squared = norm2(difference)
    result = np.sqrt(squared)
    for at in np.argwhere((squared < 2.0**-900) | (squared > 2.0**900)):
        i = tuple(at)
        e = largest_exponent(difference[i])
        result[i] = np.ldexp(np.sqrt(norm2(np.ldexp(difference[i], -e))), e)
    return result


# --- 10. The best of several restarts -------------------------------------------------------------


def fit(
    x: NDArray[Any],
    k: int,
    *,
    sample_weight: NDArray[np.float64] | None = None,
    init: str | NDArray[Any] = "k-means++",
    n_init: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
    seed: int = 0,
    group_id: int = 0,
) -> Fit:
    """Quantize one group.

    Parameters
    ----------
    x : (n, D) array
        Rows, in any accepted type.
    k : int
        Number of centroids.
    init : "k-means++", "random" or (k, D) array
        Seeding, or the stored centroids to start from (then `n_init` is not used).
    seed, group_id : int
        Key and stream of the draws: sections 7 and 8.

    Returns
    -------
    Fit
        The restart with the least distortion, the first among equals.
    """
    group = Group(x, sample_weight)
    if not isinstance(init, str):
        return lloyd(group, init.astype(group.x.dtype), max_iter, tol)
    seeding = {"k-means++": seed_kmeans_plus_plus, "random": seed_random}[init]
    best: Fit | None = None
    for restart in range(n_init):
        seeds = seeding(group, k, Stream(seed, group_id, restart))
        result = lloyd(group, group.x[seeds], max_iter, tol)
        if best is None or result.distortion < best.distortion:
            best = replace(result, seeds=group.kept[seeds], restart=restart)
    assert best is not None
    return best
