# SPDX-License-Identifier: Apache-2.0
"""The nearest centroids in real arithmetic.

Three stages, each settling what the one before could not:

1. a float64 matrix product over centred rows, with an error bound;
2. float64 sums of squared differences of the candidates left, with a smaller bound;
3. integers of any size.

Exact ties, and only they, go to the lowest index. Equal centroids are one candidate until the last
step, so that a thousand copies of a row cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, cmp_to_key
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPS = float(np.finfo(np.float64).eps)
ROWS_AT_ONCE = 1024


@dataclass
class Counts:
    """How many row-centroid pairs went into the second and third stage."""

    differences: int = 0
    exact: int = 0


def nearest(
    x: NDArray[Any], centroids: NDArray[Any], counts: Counts | None = None
) -> NDArray[np.int64]:
    """Return the index of the centroid nearest to each row of `x` (n, D), as int64 (n,)."""
    return nearest_few(x, centroids, 1, counts)[:, 0]


def nearest_few(
    x: NDArray[Any], centroids: NDArray[Any], n_nearest: int, counts: Counts | None = None
) -> NDArray[np.int64]:
    """Return the `n_nearest` nearest centroids of each row, nearest first, as int64 (n, n_nearest).

    Parameters
    ----------
    x : (n, D) array
        Finite values of any real type that float64 holds exactly.
    centroids : (k, D) array
        Likewise.
    n_nearest : int
        At most k.
    counts : Counts, optional
        Receives how often the later stages were needed.
    """
    counts = Counts() if counts is None else counts
    values = x.astype(np.float64)
    every_centroid = centroids.astype(np.float64)
    # -0 and 0 are one value but differ as bytes; adding 0 makes them one.
    places: dict[bytes, list[int]] = {}
    for index, centroid in enumerate(every_centroid + 0.0):
        places.setdefault(centroid.tobytes(), []).append(index)
    copies = [np.array(indices) for indices in places.values()]
    first = np.array([indices[0] for indices in copies])
    distinct = every_centroid[first]
    result = np.empty((len(x), n_nearest), np.int64)
    for start in range(0, len(x), ROWS_AT_ONCE):
        rows = values[start : start + ROWS_AT_ONCE]
        order = _Order(rows, distinct, first, counts)
        if n_nearest == 1:
            result[start : start + len(rows), 0] = first[order.winners()]
        else:
            for i in range(len(rows)):
                ranked = _with_copies(order.ranking(i, n_nearest), copies)
                result[start + i] = ranked[:n_nearest]
    return result


def exact_distance(row: NDArray[Any], centroid: NDArray[Any]) -> Fraction:
    """Return the squared distance between two vectors of finite values, exactly."""
    (a, b), shift = _as_integers(np.stack([row, centroid]).astype(np.float64))
    return Fraction(int(((a - b) ** 2).sum())) * Fraction(2) ** (2 * shift)


def _with_copies(tiers: list[list[int]], copies: list[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Replace distinct centroids, in tiers of equal distance, by all their copies."""
    return np.concatenate([np.sort(np.concatenate([copies[g] for g in tier])) for tier in tiers])


def _as_integers(values: NDArray[np.float64]) -> tuple[NDArray[Any], int]:
    """Return Python integers `q` and one `shift` with values = q * 2^shift."""
    mantissa, exponents = np.frexp(values)
    used = exponents[mantissa != 0]
    lowest = int(used.min()) if used.size else 0
    whole = np.ldexp(mantissa, 53).astype(np.int64).astype(object)
    shifts = np.where(mantissa != 0, exponents - lowest, 0).astype(object)
    return whole * 2**shifts, lowest - 53


class _Order:
    """The order of distinct centroids by their distance from each row of one chunk."""

    def __init__(
        self,
        rows: NDArray[np.float64],
        centroids: NDArray[np.float64],
        first: NDArray[np.intp],
        counts: Counts,
    ) -> None:
        largest = max(float(np.abs(rows).max()), float(np.abs(centroids).max()))
        exponent = int(np.frexp(largest)[1])
        n_features = rows.shape[1]
        self.raw_x, self.raw_c = rows, centroids
        self.x = np.ldexp(rows, -exponent)
        self.c = np.ldexp(centroids, -exponent)
        # Scaling and squaring may underflow: with every |value| < 1 that costs less than this.
        self.floor = n_features * 1e-300
        self.first = first
        self.counts = counts
        self.exponent = exponent
        self.integers: dict[tuple[str, int], NDArray[Any]] = {}
        self.relative = 1.1 * (n_features + 4) * EPS
        # The same vector is taken from both sides, which leaves the exact distances what they are.
        middle = self.c.mean(axis=0)
        x, c = self.x - middle, self.c - middle
        x_norms, c_norms = np.linalg.norm(x, axis=1), np.linalg.norm(c, axis=1)
        self.score = (c_norms * c_norms) - 2.0 * (x @ c.T)
        self.bound = (
            2.0 * self.relative * (c_norms * c_norms + 2.0 * np.outer(x_norms, c_norms))
            + self.floor
        )

    def winners(self) -> NDArray[np.intp]:
        """Return for each row the distinct centroid nearest to it."""
        ceiling = (self.score + self.bound).min(axis=1, keepdims=True)
        possible = self.score - self.bound <= ceiling
        winners = possible.argmax(axis=1)
        for i in np.flatnonzero(possible.sum(axis=1) > 1):
            winners[i] = self._rank(i, np.flatnonzero(possible[i]), 1)[0][0]
        return winners

    def ranking(self, i: int, n_nearest: int) -> list[list[int]]:
        """Return the distinct centroids that may be among the nearest of row `i`, in tiers."""
        upper = np.sort(self.score[i] + self.bound[i])
        ceiling = upper[min(n_nearest, len(upper)) - 1]
        return self._rank(i, np.flatnonzero(self.score[i] - self.bound[i] <= ceiling), n_nearest)

    def _rank(self, i: int, candidates: NDArray[np.intp], n_nearest: int) -> list[list[int]]:
        """Return `candidates` of row `i` in tiers of equal distance, nearest first.

        Only the tiers that the first `n_nearest` need are sure to be complete and in order. Within
        a tier the first is the one whose lowest copy comes first.
        """
        self.counts.differences += len(candidates)
        difference = self.x[i] - self.c[candidates]
        distance = np.einsum("kd,kd->k", difference, difference)
        bound = self._difference_bound(i, candidates, distance)
        ceiling = np.sort(distance + bound)[min(n_nearest, len(candidates)) - 1]
        low, high = (distance - bound).tolist(), (distance + bound).tolist()
        kept = [p for p in np.argsort(distance, kind="stable").tolist() if low[p] <= ceiling]
        exact: dict[int, int] = {}

        def true_distance(p: int) -> int:
            if p not in exact:
                self.counts.exact += 1
                exact[p] = self._exact_distance(i, int(candidates[p]))
            return exact[p]

        def compare(p: int, q: int) -> int:
            if high[p] < low[q]:
                return -1
            if high[q] < low[p]:
                return 1
            if p == q:
                return 0
            a, b = true_distance(p), true_distance(q)
            return int(a > b) - int(a < b)

        tiers: list[list[int]] = []
        last = -1
        for p in sorted(kept, key=cmp_to_key(compare)):
            if tiers and compare(last, p) == 0:
                tiers[-1].append(int(candidates[p]))
            else:
                tiers.append([int(candidates[p])])
            last = p
        return [sorted(tier, key=lambda g: int(self.first[g])) for tier in tiers]

    def _exact_distance(self, i: int, g: int) -> int:
        """Return the squared distance of row `i` and centroid `g` in units that all pairs share."""
        difference = self._as_integers("x", i) - self._as_integers("c", g)
        return int((difference * difference).sum())

    def _as_integers(self, name: str, i: int) -> NDArray[Any]:
        """Return a row (``"x"``) or centroid (``"c"``) as multiples of 2^lowest."""
        if (name, i) not in self.integers:
            values = (self.raw_x if name == "x" else self.raw_c)[i]
            mantissa, exponents = np.frexp(values)
            whole = np.ldexp(mantissa, 53).astype(np.int64).astype(object)
            shifts = np.where(mantissa != 0, exponents - self.lowest, 0)
            self.integers[name, i] = whole << shifts.astype(object)
        return self.integers[name, i]

    @cached_property
    def lowest(self) -> int:
        """The least exponent of a value that is not 0."""
        return min(
            int(np.frexp(values)[1].min(where=values != 0, initial=self.exponent))
            for values in (self.raw_x, self.raw_c)
        )

    @cached_property
    def on_grid(self) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """Which rows and which centroids lie on each grid on which all operations are exact."""
        # With |value| < 1 on a grid of 2^-g the squares lie below 4 on a grid of 2^-2g.
        grids = [g for g in (8, 12, 16, 20) if 4 * self.x.shape[1] * 4.0**g <= 2.0**53]
        return [(_on_grid(self.x, grid), _on_grid(self.c, grid)) for grid in grids]

    def _difference_bound(
        self, i: int, candidates: NDArray[np.intp], distance: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Bound the error of `distance`; zero where integers make every operation exact."""
        for rows, centroids in self.on_grid:
            if rows[i] and centroids[candidates].all():
                return np.zeros_like(distance)
        return self.relative * distance + self.floor


def _on_grid(values: NDArray[np.float64], grid: int) -> NDArray[np.bool_]:
    """Tell which vectors hold multiples of 2^-grid alone."""
    scaled = np.ldexp(values, grid)
    on: NDArray[np.bool_] = (scaled == np.rint(scaled)).all(axis=1)
    return on
