# SPDX-License-Identifier: Apache-2.0
"""Costs of transport against a linear program, and the bounds that need no such program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddkern.errors import UnsupportedError
from ddkern.evaluate import transport as module
from ddkern.evaluate.transport import TransportCost, bound_transport, solve_transport

# Of the linear program, whose sums have tolerances of 1e-10.
ROUNDING = 1e-8

Solve = Callable[[NDArray[np.float64], NDArray[np.float64]], TransportCost]


def least_cost(cost: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """Return the optimum of the linear program over all plans, sums of rows and columns given."""
    scipy_optimize = pytest.importorskip("scipy.optimize")
    n, k = cost.shape
    rows = np.kron(np.eye(n), np.ones(k))
    columns = np.kron(np.ones(n), np.eye(k))
    tolerances = ("primal_feasibility_tolerance", "dual_feasibility_tolerance")
    found = scipy_optimize.linprog(
        cost.ravel(),
        A_eq=np.vstack([rows, columns]),
        b_eq=np.append(np.full(n, 1 / n), weight),
        options=dict.fromkeys(tolerances, 1e-10),
    )
    assert found.success
    return float(found.fun)


def make_cost(n: int, k: int, d: int = 2, seed: int = 0) -> NDArray[np.float64]:
    """Return squared distances of random points to random atoms, at most 1."""
    rng = np.random.default_rng(seed)
    points, atoms = rng.normal(size=(n, 1, d)), rng.normal(size=(k, d))
    cost = np.square(points - atoms).sum(axis=2)
    return cost / cost.max()


def solved(cost: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    pytest.importorskip("ot")
    found = solve_transport(cost, weight)
    assert found.lower == found.upper
    return found.lower


# Points at 0, 1, 2, 3 and atoms at 0 and 3 (costs are squares, over 9): the plan cuts the line.
LINE = np.square(np.array([[0.0], [1], [2], [3]]) - np.array([0.0, 3])) / 9


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ([0.5, 0.5], (0 + 1 + 1 + 0) / 36),
        ([0.25, 0.75], (0 + 4 + 1 + 0) / 36),
        # Half of the point at 1 goes to each of them.
        ([0.375, 0.625], (0 + 0.5 * 1 + 0.5 * 4 + 1 + 0) / 36),
        ([1.0, 0.0], (0 + 1 + 4 + 9) / 36),
    ],
)
def test_costs_worked_out_by_hand(weight: list[float], expected: float) -> None:
    assert solved(LINE, np.array(weight)) == pytest.approx(expected, rel=1e-12)
    bounds = bound_transport(LINE, np.array(weight))
    assert bounds.lower <= expected * (1 + 1e-12)
    assert bounds.upper >= expected * (1 - 1e-12)
    assert bounds.upper <= expected * 1.001


problems = st.tuples(
    st.integers(1, 8), st.integers(1, 5), st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 30.0])
)


def make_problem(
    n: int, k: int, seed: int, concentration: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weight = np.random.default_rng(seed).dirichlet(np.full(k, concentration))
    return make_cost(n, k, seed=seed), weight


@settings(max_examples=200, deadline=None, derandomize=True)
@given(problems)
def test_linear_program_agrees(problem: tuple[int, int, int, float]) -> None:
    cost, weight = make_problem(*problem)
    assert solved(cost, weight) == pytest.approx(least_cost(cost, weight), rel=0, abs=ROUNDING)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(problems)
def test_bounds_hold_the_optimum(problem: tuple[int, int, int, float]) -> None:
    cost, weight = make_problem(*problem)
    exact = least_cost(cost, weight)
    bounds = bound_transport(cost, weight)
    assert 0 <= bounds.lower <= bounds.upper
    assert bounds.lower - ROUNDING <= exact <= bounds.upper + ROUNDING
    assert bounds.upper <= 1.05 * exact + ROUNDING


@pytest.mark.parametrize("weights", ["uniform", "skewed", "far apart"])
@pytest.mark.parametrize(("n", "k", "d"), [(800, 40, 2), (800, 40, 50), (500, 100, 5)])
def test_bounds_are_tight(n: int, k: int, d: int, weights: str) -> None:
    weight = {
        "uniform": np.ones(k),
        "skewed": np.random.default_rng(1).dirichlet(np.full(k, 0.3)),
        "far apart": 10.0 ** -np.arange(k),
    }[weights]
    weight /= weight.sum()
    cost = make_cost(n, k, d)
    exact = solved(cost, weight)
    bounds = bound_transport(cost, weight)
    assert bounds.lower <= exact * (1 + 1e-12)
    assert bounds.upper >= exact * (1 - 1e-12)
    assert bounds.upper <= 1.003 * bounds.lower


def test_an_atom_far_from_all_points() -> None:
    """Its potential is thousands of times the other costs."""
    rng = np.random.default_rng(0)
    points, atoms = rng.normal(size=(300, 1, 2)), rng.normal(size=(10, 2))
    atoms[0] = 300
    cost = np.square(points - atoms).sum(axis=2)
    cost /= cost.max()
    bounds = bound_transport(cost, np.full(10, 0.1))
    exact = solved(cost, np.full(10, 0.1))
    assert bounds.lower <= exact * (1 + 1e-12)
    assert bounds.lower >= 0.999 * bounds.upper


@pytest.mark.parametrize("solve", [bound_transport, solve_transport])
def test_degenerate_problems(solve: Solve) -> None:
    if solve is solve_transport:
        pytest.importorskip("ot")
    nothing = solve(np.zeros((5, 3)), np.full(3, 1 / 3))
    assert (nothing.lower, nothing.upper) == (0, 0)
    one_atom = solve(np.array([[0.5], [1.0]]), np.ones(1))
    assert (one_atom.lower, one_atom.upper) == pytest.approx((0.75, 0.75))
    one_point = solve(np.array([[0.5, 1.0]]), np.array([0.25, 0.75]))
    assert (one_point.lower, one_point.upper) == pytest.approx((0.875, 0.875), rel=1e-4)


@pytest.mark.parametrize("solve", [bound_transport, solve_transport])
def test_an_atom_of_weight_0_is_not_there(solve: Solve) -> None:
    if solve is solve_transport:
        pytest.importorskip("ot")
    cost = make_cost(50, 5)
    # The nearest one by far.
    cost[:, 2] *= 1e-3
    weight = np.array([0.1, 0.4, 0, 0.3, 0.2])
    used = weight > 0
    assert solve(cost, weight) == solve(np.ascontiguousarray(cost[:, used]), weight[used])


def test_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, weight = make_cost(100, 7), np.full(7, 1 / 7)
    whole = bound_transport(cost, weight)
    monkeypatch.setattr(module, "_BLOCK", 7 * 3)
    parts = bound_transport(cost, weight)
    assert (parts.lower, parts.upper) == pytest.approx((whole.lower, whole.upper), rel=1e-9)


def fake_ot(plan: NDArray[np.float64], potential: NDArray[np.float64], warning: str | None) -> Any:
    """Return a module whose network simplex finds this."""
    return SimpleNamespace(
        emd=lambda a, b, cost, **options: (plan, {"v": potential, "warning": warning})
    )


def test_a_solver_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Potentials that do not prove the plan leave the bounds apart."""
    cost, weight = LINE, np.array([0.5, 0.5])
    plan = np.full((4, 2), 0.125)
    monkeypatch.setattr(module, "import_optional", lambda *_: fake_ot(plan, np.zeros(2), None))
    found = solve_transport(cost, weight)
    assert found.lower == pytest.approx(2 / 36)
    assert found.upper == pytest.approx(28 / 72)


def test_a_solver_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, weight = LINE, np.array([0.5, 0.5])
    failed = fake_ot(np.zeros((4, 2)), np.zeros(2), "Problem unbounded")
    monkeypatch.setattr(module, "import_optional", lambda *_: failed)
    assert solve_transport(cost, weight) == bound_transport(cost, weight)


def test_without_pot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(UnsupportedError, match=r"exact transport needs .* ot .*ddkern\[transport"):
        solve_transport(LINE, np.array([0.5, 0.5]))
