# SPDX-License-Identifier: Apache-2.0
"""What must hold for any data: hypothesis draws sizes and kinds, a seed fills in the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ddkern
from helpers.bits import assert_same_array_bits, assert_same_bits

pytestmark = [
    pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::ddkern.EmptyCellWarning"),
]

few_examples = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Draw:
    """Rows, weights that are small whole numbers (some 0), and options."""

    x: NDArray[Any]
    k: int
    counts: NDArray[np.int64]
    options: dict[str, Any]

    def run(self, x: NDArray[Any] | None = None, **more: Any) -> ddkern.QuantizeResult:
        return ddkern.quantize(self.x if x is None else x, self.k, **{**self.options, **more})


@st.composite
def draws(draw: st.DrawFn) -> Draw:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(1, 70)), draw(st.sampled_from([1, 2, 5, 16, 33]))
    kind = draw(st.sampled_from(["normal", "grid", "copies", "offset", "scales"]))
    values = rng.normal(size=(n, d))
    if kind == "grid":
        values = rng.integers(-3, 4, (n, d)).astype(np.float64)
    elif kind == "copies":
        values = values[rng.integers(0, max(1, n // 3), n)]
    elif kind == "offset":
        values += 1e4
    elif kind == "scales":
        values *= 10.0 ** rng.integers(-8, 8, d)
    counts = rng.integers(0, 4, n)
    counts[rng.integers(0, n)] += 1
    options = {
        "init": draw(st.sampled_from(["k-means++", "random"])),
        "algorithm": draw(st.sampled_from(["auto", "gram", "streaming"])),
        "n_init": draw(st.sampled_from([1, 1, 3])),
        "max_iter": draw(st.sampled_from([1, 3, 300])),
        "tol": draw(st.sampled_from([0.0, 1e-4])),
        "n_threads": draw(st.sampled_from([1, 1, 1, 2])),
        "random_state": draw(st.integers(0, 2**64 - 1)),
    }
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    k = draw(st.integers(1, min(12, np.count_nonzero(counts))))
    return Draw(values.astype(dtype), k, counts, options)


@given(draws())
@few_examples
def test_distortion_never_increases(case: Draw) -> None:
    weight = case.counts.astype(np.float64)
    for more in ({}, {"sample_weight": weight}):
        (history,) = case.run(**more).distortion_history
        assert np.all(history >= 0)
        assert np.all(np.diff(history) <= 1e-12 * history[0])


@given(draws())
@few_examples
def test_whole_weights_are_repetition(case: Draw) -> None:
    weighted = case.run(sample_weight=case.counts)
    repeated = case.run(np.repeat(case.x, case.counts, axis=0))
    for name in ("centroids", "weights", "distortion", "inertia", "distortion_history", "n_iter"):
        assert_same_array_bits(getattr(weighted, name), getattr(repeated, name), name)
    kept = case.counts > 0
    firsts = (np.cumsum(case.counts) - case.counts)[kept]
    assert_same_array_bits(weighted.assignment[kept], repeated.assignment[firsts], "assignment")
    same = {name: case.options[name] for name in ("init", "algorithm", "random_state")}
    seeds = ddkern.seed_centroids(case.x, case.k, sample_weight=case.counts, **same)
    others = ddkern.seed_centroids(np.repeat(case.x, case.counts, axis=0), case.k, **same)
    assert_same_array_bits(seeds.centroids, others.centroids, "seeds")


@given(draws())
@few_examples
def test_weight_zero_is_absence(case: Draw) -> None:
    rng = np.random.default_rng(len(case.x))
    weight = case.counts * rng.uniform(0.1, 1, len(case.x))
    kept = weight > 0
    result = case.run(sample_weight=weight)
    without = case.run(case.x[kept], sample_weight=weight[kept])
    for name in ("centroids", "weights", "distortion", "inertia", "distortion_history", "n_iter"):
        assert_same_array_bits(getattr(result, name), getattr(without, name), name)
    assert_same_array_bits(result.assignment[kept], without.assignment, "assignment")


@given(draws(), st.integers(-60, 60))
@few_examples
def test_scaling_the_data_by_a_power_of_two_scales_the_result(case: Draw, power: int) -> None:
    """True of data that is not whole numbers up to 256, whose centre is rounded to one."""
    x = case.x + np.asarray(0.1, case.x.dtype)
    plain, scaled = case.run(x), case.run(np.ldexp(x, power))
    assert_same_array_bits(scaled.centroids, np.ldexp(plain.centroids, power), "centroids")
    for name in ("weights", "assignment", "n_iter", "converged"):
        assert_same_array_bits(getattr(scaled, name), getattr(plain, name), name)
    for name in ("distortion", "inertia"):
        expected = np.ldexp(getattr(plain, name), 2 * power)
        assert_same_array_bits(getattr(scaled, name), expected, name)
    history = np.ldexp(plain.distortion_history[0], 2 * power)
    assert_same_array_bits(scaled.distortion_history[0], history, "history")


@given(draws(), st.integers(-900, 900))
@few_examples
def test_scaling_the_weights_by_a_power_of_two_changes_nothing(case: Draw, power: int) -> None:
    weight = case.counts * np.random.default_rng(len(case.x)).uniform(0.1, 1, len(case.x))
    plain = case.run(sample_weight=weight)
    scaled = case.run(sample_weight=np.ldexp(weight, power))
    names = ("centroids", "weights", "assignment", "distortion", "distortion_history", "n_iter")
    assert_same_bits(scaled, plain, names)
    assert_same_array_bits(scaled.inertia, np.ldexp(plain.inertia, power), "inertia")


@given(draws(), st.integers(2, 6), st.randoms(use_true_random=False))
@few_examples
def test_permuting_groups_permutes_results(case: Draw, n_groups: int, random: Any) -> None:
    """Rows move about as whole groups; each group keeps its id, and so its answer."""
    x = np.concatenate([case.x * (g + 1) for g in range(n_groups)])
    ids = np.repeat(np.arange(n_groups) * 7, len(case.x))
    order = list(range(n_groups))
    random.shuffle(order)
    rows = np.concatenate([np.flatnonzero(ids == 7 * g) for g in order])
    plain, moved = case.run(x, groups=ids), case.run(x[rows], groups=ids[rows])
    names = ("centroids", "weights", "groups", "distortion", "inertia", "distortion_history")
    assert_same_bits(moved, plain, (*names, "n_iter", "converged"))
    assert_same_array_bits(moved.assignment, plain.assignment[rows], "assignment")


@given(draws())
@few_examples
def test_distortion_is_the_wasserstein_distance_of_the_masses(case: Draw) -> None:
    """The plan that moves each row to its cell has these marginals and no cheaper plan exists."""
    weight = case.counts / case.counts.sum()
    result = case.run(sample_weight=case.counts)
    mass = np.bincount(result.assignment, weight, minlength=case.k)
    np.testing.assert_allclose(result.weights, mass, atol=1e-12)
    x, centroids = case.x.astype(np.float64), result.centroids.astype(np.float64)
    cost = ((x[:, None] - centroids[None]) ** 2).sum(axis=2)
    scale = max(1e-300, float(cost.max()))
    np.testing.assert_allclose(
        result.distortion.item() / scale,
        (weight * cost[np.arange(len(x)), result.assignment]).sum() / scale,
        rtol=1e-9,
        atol=1e-24,
    )
    np.testing.assert_allclose(
        result.distortion.item() / scale,
        (weight * cost.min(axis=1)).sum() / scale,
        rtol=1e-9,
        atol=1e-12,
    )
    np.testing.assert_allclose(result.inertia, result.distortion * case.counts.sum(), rtol=1e-12)


@given(draws())
@few_examples
def test_the_result_is_not_worse_than_its_seeding(case: Draw) -> None:
    same = {name: case.options[name] for name in ("init", "algorithm", "random_state")}
    seeds = ddkern.seed_centroids(case.x, case.k, **same)
    _, distance = ddkern.assign(case.x, seeds.centroids, return_distance=True)
    result = case.run(n_init=1)
    seeding = float(np.mean(np.asarray(distance) ** 2))
    # Centroids are stored in float32: at an offset their rounding is part of the distortion.
    scale = float(np.abs(case.x).max())
    rounding = case.x.shape[1] * (scale * float(np.finfo(case.x.dtype).eps)) ** 2
    assert result.distortion.item() <= seeding * (1 + 1e-9) + rounding


@given(draws())
@few_examples
def test_seeding_then_lloyd_is_quantize(case: Draw) -> None:
    same = {name: case.options[name] for name in ("init", "algorithm", "random_state")}
    seeds = ddkern.seed_centroids(case.x, case.k, **same)
    assert_same_bits(case.run(init=seeds.centroids, n_init=1), case.run(n_init=1))
