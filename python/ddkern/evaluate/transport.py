# SPDX-License-Identifier: Apache-2.0
"""What it costs to move many points of equal mass to a few atoms of given weights.

The problem is a linear program: a plan ``P`` of shape (n, k), not negative, whose rows sum to 1/n
and whose columns sum to the weights, with the least ``sum(P * cost)``. Its dual has one potential
an atom, and any potentials bound the cost from below,

    dual(v) = weight @ v + mean over points of min over atoms of (cost - v),

as any plan bounds it from above. Every answer here is such a pair, whoever found potentials and
plan: :func:`solve_transport` asks the network simplex of the package POT, and
:func:`bound_transport`, which needs numpy alone, climbs a smoothed dual.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddkern.optional import import_optional

__all__ = ["TransportCost", "bound_transport", "solve_transport"]

# The two sides of an optimum that was found in float64 are about 1e-14 apart, a part of which is of
# the largest cost and not of the least.
_CLOSED, _CLOSED_ABSOLUTE = 1e-9, 1e-14
# Where climbing ends, relative to the upper bound.
_NARROW = 1e-4

# Temperatures are those of a softmax, in units of the mean cost. The last is 4e-6 of it.
_FIRST_TEMPERATURE = 0.25
_COOLING = 0.25
_MOST_TEMPERATURES = 9
_MOST_STEPS_A_TEMPERATURE = 8
# Masses that differ from the weights by no more than this in all are worth no further step.
_SETTLED = 1e-4
# The Hessian has hardly any curvature between atoms whose cells do not touch.
_DAMPING = 1e-6
_SHORTEST_STEP = 1e-3

# Entries of the cost that are worked on at once, so that they stay in a cache.
_BLOCK = 1 << 17

# So many that the optimum comes first.
_MOST_PIVOTS = 10**9


@dataclass(frozen=True, slots=True)
class TransportCost:
    """A lower and an upper bound of a cost; equal where it is known up to rounding.

    Attributes
    ----------
    lower, upper : float
    """

    lower: float
    upper: float


def solve_transport(cost: NDArray[np.float64], weight: NDArray[np.float64]) -> TransportCost:
    """The least cost, by the network simplex of POT.

    Its potentials and its plan are a lower and an upper bound. Where they agree, to nine digits or
    to rounding, both bounds of the answer are the lower one. The simplex fails on some weights that
    are many orders of magnitude apart; then the answer is that of :func:`bound_transport`.

    Parameters
    ----------
    cost : ndarray of float64, shape (n, k)
        In [0, 1], since absolute rounding is taken to be that of numbers of magnitude 1.
    weight : ndarray of float64, shape (k,)
        At least 0, with the sum 1.

    Raises
    ------
    UnsupportedError
        If POT is not installed.
    """
    ot = import_optional("ot", "exact transport", "transport")
    cost, weight = _weighted_atoms(cost, weight)
    share = np.full(len(cost), 1 / len(cost))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the log has it too
        plan, log = ot.emd(share, weight, cost, numItermax=_MOST_PIVOTS, log=True)
    if log["warning"] is not None:
        return bound_transport(cost, weight)
    upper = float(np.vdot(plan, cost))
    lower = max(0.0, min(_dual(cost, weight, log["v"]), upper))
    closed = upper - lower <= _CLOSED * upper + _CLOSED_ABSOLUTE
    return TransportCost(lower, lower if closed else upper)


def bound_transport(cost: NDArray[np.float64], weight: NDArray[np.float64]) -> TransportCost:
    """Bounds of the least cost, certified by potentials and a plan.

    Potentials climb the dual with a softmax in the place of its minimum, at falling temperatures:
    Sinkhorn's step, which makes up for weights and costs of any magnitude, and a damped Newton
    step [1]_ in turn. The softmax is a plan but for the sums of its columns. Columns that are too
    heavy are scaled down, and what that leaves is spread over the others [2]_. The search ends
    where the bounds are within 1e-4 of each other, mostly after some tens of passes over ``cost``,
    or with the last temperature.

    Parameters
    ----------
    cost, weight
        As in :func:`solve_transport`.

    References
    ----------
    .. [1] J. Kitagawa, Q. Merigot and B. Thibert, "Convergence of a Newton algorithm for
       semi-discrete optimal transport", Journal of the European Mathematical Society 21, 2019.
    .. [2] J. Altschuler, J. Weed and P. Rigollet, "Near-linear time approximation algorithms for
       optimal transport via Sinkhorn iteration", NeurIPS 2017.
    """
    cost, weight = _weighted_atoms(cost, weight)
    mean = float(cost.mean())
    if mean == 0:
        return TransportCost(0.0, 0.0)
    potential = np.zeros(len(weight))
    lower, upper = 0.0, np.inf
    for cooled in range(_MOST_TEMPERATURES):
        temperature = _FIRST_TEMPERATURE * _COOLING**cooled * mean
        point = _smooth(cost, weight, potential, temperature)
        for _ in range(_MOST_STEPS_A_TEMPERATURE):
            lower, upper = max(lower, point.lower), min(upper, point.upper(weight))
            if upper - lower <= _NARROW * upper:
                return TransportCost(min(lower, upper), upper)
            if np.abs(weight - point.mass).sum() <= _SETTLED:
                break
            point = _climb(cost, weight, point)
        potential = point.potential
    return TransportCost(lower, upper)


def _weighted_atoms(
    cost: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nothing goes to an atom of weight 0."""
    used = weight > 0
    if used.all():
        return cost, weight
    return np.ascontiguousarray(cost[:, used]), weight[used]


def _dual(
    cost: NDArray[np.float64], weight: NDArray[np.float64], potential: NDArray[np.float64]
) -> float:
    total = sum(float((block - potential).min(axis=1).sum()) for block in _blocks(cost))
    return float(weight @ potential) + total / len(cost)


def _blocks(cost: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    rows = max(1, _BLOCK // cost.shape[1])
    return [cost[start : start + rows] for start in range(0, len(cost), rows)]


@dataclass(frozen=True, slots=True, eq=False)
class _SmoothDual:
    """The smoothed dual at some potentials, where each point is shared out by a softmax.

    Attributes
    ----------
    potential : ndarray of float64, shape (k,)
    temperature : float
    value : float
        Of the smoothed dual.
    lower : float
        The dual itself.
    mass : ndarray of float64, shape (k,)
        What each atom gets.
    overlap : ndarray of float64, shape (k, k)
        Mean over points of the product of the shares of two atoms.
    moved : ndarray of float64, shape (k, k)
        Mean over points of the share of the first atom times the cost to the second.
    """

    potential: NDArray[np.float64]
    temperature: float
    value: float
    lower: float
    mass: NDArray[np.float64]
    overlap: NDArray[np.float64]
    moved: NDArray[np.float64]

    def upper(self, weight: NDArray[np.float64]) -> float:
        """The cost of the plan that the shares become.

        Atoms that get too much give back the same part of every share; what a point has got back
        goes to the atoms that lack something, in proportion to what they lack.
        """
        with np.errstate(divide="ignore", over="ignore"):
            kept = np.minimum(1, weight / self.mass)
        lacking = weight - kept * self.mass
        cost = float(kept @ self.moved.diagonal())
        if lacking.sum() > 0:
            cost += float((1 - kept) @ self.moved @ (lacking / lacking.sum()))
        return cost

    def sinkhorn_step(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """What would give every atom its weight if the shares of the others stayed as they are."""
        mass = np.maximum(self.mass, np.finfo(np.float64).tiny)
        return self.temperature * np.log(weight / mass)

    def newton_step(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the second-order model of the smoothed dual has its maximum."""
        heaviest = float(self.mass.max())
        curvature = np.diag(self.mass + _DAMPING * heaviest) - self.overlap
        # The common shift changes nothing: any curvature along it will do.
        curvature += heaviest / len(weight)
        ascent = np.asarray(np.linalg.solve(curvature, weight - self.mass), np.float64)
        return self.temperature * ascent


def _smooth(
    cost: NDArray[np.float64],
    weight: NDArray[np.float64],
    potential: NDArray[np.float64],
    temperature: float,
) -> _SmoothDual:
    n, k = cost.shape
    hard = soft = 0.0
    mass, overlap, moved = np.zeros(k), np.zeros((k, k)), np.zeros((k, k))
    for block in _blocks(cost):
        gap = block - potential
        least = gap.min(axis=1, keepdims=True)
        share = np.exp((least - gap) / temperature)
        total = share.sum(axis=1, keepdims=True)
        share /= total
        hard += float(least.sum())
        soft += float(np.log(total).sum())
        mass += share.sum(axis=0)
        overlap += share.T @ share
        moved += share.T @ block
    lower = float(weight @ potential) + hard / n
    return _SmoothDual(
        potential,
        temperature,
        lower - temperature * soft / n,
        lower,
        mass / n,
        overlap / n,
        moved / n,
    )


def _climb(
    cost: NDArray[np.float64], weight: NDArray[np.float64], point: _SmoothDual
) -> _SmoothDual:
    """A higher point, where there is one."""
    balanced = point.potential + point.sinkhorn_step(weight)
    point = _smooth(cost, weight, balanced, point.temperature)
    step = point.newton_step(weight)
    length = 1.0
    while length >= _SHORTEST_STEP:
        found = _smooth(cost, weight, point.potential + length * step, point.temperature)
        if found.value > point.value:
            return found
        length *= 0.25
    return point
