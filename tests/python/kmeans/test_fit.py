# SPDX-License-Identifier: Apache-2.0
"""The contract of quantize as a caller sees it; exactness and bits have files of their own."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern import ConvergenceWarning, EmptyCellWarning, QuantizeResult
from ddkern.kmeans.fit import ALGORITHMS, INIT_METHODS
from helpers.bits import assert_same_array_bits, assert_same_bits
from helpers.isa import forced_isa

RNG = np.random.default_rng(7)
X = RNG.normal(size=(90, 2, 3)).astype(np.float32)
GROUPS = np.array([4, -2, 7])[RNG.integers(0, 3, 90)]


def _quantize(x: Any = X, k: Any = 3, **options: Any) -> QuantizeResult:
    return ddkern.quantize(x, k, **{"random_state": 0, **options})


@pytest.mark.sanitize
def test_shapes_types_and_sums() -> None:
    q = _quantize(k={-2: 2, 4: 5, 7: 3}, groups=GROUPS)
    assert q.centroids.shape == (10, 2, 3)
    assert q.centroids.dtype == np.float32
    assert q.groups.tolist() == [-2] * 2 + [4] * 5 + [7] * 3
    assert q.groups.dtype == q.assignment.dtype == q.n_iter.dtype == np.int64
    assert q.weights.dtype == q.distortion.dtype == q.inertia.dtype == np.float64
    assert q.converged.dtype == np.bool_
    assert q.converged.all()
    for per_group in (q.distortion, q.inertia, q.n_iter, q.converged, q.stats.empty_cells):
        assert per_group.shape == (3,)
    assert q.random_state == 0
    for g, group in enumerate((-2, 4, 7)):
        rows = group == GROUPS
        assert (q.groups[q.assignment[rows]] == group).all()
        counts = np.bincount(q.assignment[rows], minlength=10)[q.groups == group]
        assert_same_array_bits(q.weights[q.groups == group], counts / rows.sum(), "weights")
        difference = (X - q.centroids[q.assignment])[rows].astype(np.float64)
        assert q.inertia[g] == pytest.approx((difference**2).sum(), rel=1e-6)
        assert q.distortion[g] == pytest.approx(q.inertia[g] / rows.sum(), rel=1e-12)
        history = q.distortion_history[g]
        assert history.shape == (q.n_iter[g],)
        assert (np.diff(history) <= 0).all()
        assert q.distortion[g] == pytest.approx(history[-1], rel=0.05)


def test_one_group_keeps_the_axis_of_groups() -> None:
    q = _quantize()
    assert q.centroids.shape == (3, 2, 3)
    assert q.distortion.shape == q.n_iter.shape == (1,)
    assert q.groups.tolist() == [0, 0, 0]
    assert len(q.distortion_history) == 1


def test_scalar_points() -> None:
    q = _quantize(np.array([0.0, 1.0, 10.0, 12.0]), 2)
    assert sorted(q.centroids.tolist()) == [0.5, 11.0]
    assert q.assignment.shape == (4,)


@pytest.mark.sanitize
def test_batch_items_are_problems_of_their_own() -> None:
    items = X.reshape(3, 30, 2, 3)
    q = _quantize(items, 4, batch_dims=1, random_state=[5, 6, 7])
    assert q.centroids.shape == (3, 4, 2, 3)
    assert q.weights.shape == q.groups.shape == (3, 4)
    assert q.assignment.shape == (3, 30)
    assert q.distortion.shape == (3,)
    assert (q.groups == 0).all()
    np.testing.assert_array_equal(q.random_state, [5, 6, 7])
    for i, item in enumerate(items):
        alone = _quantize(item, 4, random_state=5 + i)
        assert_same_array_bits(q.centroids[i], alone.centroids, "centroids")
        assert_same_array_bits(q.weights[i], alone.weights, "weights")
        assert_same_array_bits(q.assignment[i], alone.assignment, "assignment")
        assert_same_array_bits(q.distortion_history[i], alone.distortion_history[0], "history")


def test_batch_items_share_one_seed() -> None:
    q = _quantize(np.stack([X, X]), 4, batch_dims=1)
    assert_same_array_bits(q.centroids[0], q.centroids[1], "centroids")


@pytest.mark.sanitize
def test_a_group_does_not_depend_on_the_others() -> None:
    together = _quantize(groups=GROUPS)
    for g, group in enumerate((-2, 4, 7)):
        rows = group == GROUPS
        alone = _quantize(X[rows], groups=GROUPS[rows])
        own = together.groups == group
        assert_same_array_bits(together.centroids[own], alone.centroids, "centroids")
        assert_same_array_bits(together.weights[own], alone.weights, "weights")
        assert_same_array_bits(together.assignment[rows] - 3 * g, alone.assignment, "assignment")


def test_sorting_the_rows_by_group_changes_nothing() -> None:
    order = np.argsort(GROUPS, kind="stable")
    mixed, sorted_ = _quantize(groups=GROUPS), _quantize(X[order], groups=GROUPS[order])
    assert_same_bits(mixed, sorted_, ("centroids", "weights", "groups", "distortion", "n_iter"))
    assert_same_array_bits(mixed.assignment[order], sorted_.assignment, "assignment")


def test_seed_is_drawn_and_recorded() -> None:
    drawn = _quantize(random_state=None)
    assert isinstance(drawn.random_state, int)
    assert_same_bits(drawn, _quantize(random_state=drawn.random_state))
    assert drawn.random_state != _quantize(random_state=None).random_state


def test_global_random_state_is_not_touched() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the state that must stay as it is
    _quantize(random_state=None)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_thread_count_changes_nothing(n_threads: int) -> None:
    assert_same_bits(_quantize(groups=GROUPS, n_threads=n_threads), _quantize(groups=GROUPS))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("init", INIT_METHODS)
@pytest.mark.sanitize
def test_algorithm_changes_nothing(algorithm: Any, init: Any) -> None:
    forced = _quantize(groups=GROUPS, algorithm=algorithm, init=init)
    assert_same_bits(forced, _quantize(groups=GROUPS, init=init))
    if algorithm != "auto":
        assert forced.stats.algorithm == (algorithm,) * 3


@pytest.mark.sanitize
def test_small_memory_changes_nothing() -> None:
    assert_same_bits(_quantize(groups=GROUPS, max_memory=1), _quantize(groups=GROUPS))


def test_init_array_is_where_the_iteration_starts() -> None:
    x = np.array([0.0, 1.0, 10.0, 12.0])
    q = _quantize(x, 2, init=[11.0, 0.0])
    assert q.centroids.tolist() == [11.0, 0.5]
    swapped = _quantize(x, 2, init=[0.0, 11.0])
    assert swapped.centroids.tolist() == [0.5, 11.0]


def test_init_array_for_groups_and_batches() -> None:
    x = np.array([0.0, 1.0, 10.0, 12.0, 100.0, 104.0])
    q = _quantize(x, {0: 1, 1: 2}, groups=[1, 1, 1, 1, 0, 0], init=[50.0, 11.0, 0.0])
    assert q.centroids.tolist() == [102.0, 11.0, 0.5]
    q = _quantize(x.reshape(2, 3), 1, batch_dims=1, init=[[3.0], [4.0]])
    assert q.centroids.ravel().tolist() == [11 / 3, 72.0]


def test_seeds_passed_on_give_the_same_result() -> None:
    seeds = ddkern.seed_centroids(X, 5, groups=GROUPS, random_state=3)
    assert_same_bits(
        _quantize(k=5, groups=GROUPS, init=seeds.centroids),
        _quantize(k=5, groups=GROUPS, random_state=3),
    )


def test_best_restart_is_kept() -> None:
    restarts = _quantize(k=9, n_init=6)
    first = _quantize(k=9)
    assert restarts.distortion.item() <= first.distortion.item()
    assert 0 <= restarts.stats.restart.item() < 6


def test_weights_mean_repetition() -> None:
    counts = np.arange(90) % 4
    weighted = _quantize(sample_weight=counts)
    repeated = _quantize(X.repeat(counts, axis=0))
    assert_same_bits(
        weighted, repeated, ("centroids", "weights", "distortion", "inertia", "n_iter")
    )
    repeated_assignment = weighted.assignment.repeat(counts)
    assert_same_array_bits(repeated_assignment, repeated.assignment, "assignment")


def test_rows_of_weight_0_are_assigned() -> None:
    x = np.array([0.0, 10.0, 9.0, 1.0])
    q = _quantize(x, 2, sample_weight=[1, 1, 0, 0])
    assert sorted(q.centroids.tolist()) == [0.0, 10.0]
    assert q.assignment[2] == q.assignment[1]
    assert q.assignment[3] == q.assignment[0]


def test_float64_stays_float64() -> None:
    x = np.array([1.0, 1.0 + 2**-40, 5.0])
    q = _quantize(x, 3)
    assert q.centroids.dtype == np.float64
    assert sorted(q.centroids.tolist()) == x.tolist()


def test_stats_describe_the_run() -> None:
    stats = _quantize(groups=GROUPS, n_threads=2).stats
    assert set(stats.algorithm) <= {"gram", "streaming"}
    assert stats.isa == ddkern.backend.config()["isa"]["active"]
    assert stats.n_threads == 2
    assert (stats.rows_assigned >= np.unique(GROUPS, return_counts=True)[1]).all()
    assert (stats.rows_rechecked <= stats.rows_assigned).all()
    assert (stats.rows_exact <= stats.rows_rechecked).all()
    assert stats.seconds_total > 0
    for name in ("seconds_prepare", "seconds_seed", "seconds_lloyd"):
        assert (getattr(stats, name) >= 0).all()


# -- warnings ------------------------------------------------------------------------------------


def test_max_iter_is_a_warning_and_a_field() -> None:
    x = np.random.default_rng(0).normal(size=(400, 2))
    with pytest.warns(
        ConvergenceWarning,
        match=r"^groups 0 and 1 \(of 2\) did not converge within max_iter=1 iterations; raise",
    ) as record:
        q = _quantize(x, 20, groups=np.arange(400) % 2, max_iter=1, tol=0)
    assert record[0].filename == __file__
    assert not q.converged.any()
    assert q.n_iter.tolist() == [1, 1]
    again = ddkern.assign(x, q.centroids, groups=np.arange(400) % 2, centroid_groups=q.groups)
    assert_same_array_bits(q.assignment, again, "assignment")


def test_fewer_distinct_rows_than_k() -> None:
    x = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 5.0, 6.0, 7.0])
    groups = [3, 3, 3, 3, 3, 3, 4, 4, 4]
    with pytest.warns(
        EmptyCellWarning,
        match=r"^fewer distinct rows than k in group 3 \(group 3: 1 of k=3 cells are empty\)",
    ) as record:
        q = _quantize(x, 3, groups=groups)
    assert record[0].filename == __file__
    assert q.stats.empty_cells.tolist() == [1, 0]
    assert sorted(q.weights.tolist()) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0.5, 0.5])
    assert q.distortion.tolist() == [0, 0]


def test_batch_warnings_name_items() -> None:
    with pytest.warns(EmptyCellWarning, match="in item 1 "):
        _quantize(np.array([[1.0, 2.0], [3.0, 3.0]]), 2, batch_dims=1)


def test_no_warning_without_a_reason() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _quantize(groups=GROUPS)


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k=0;"),
        ({"k": 91}, ValueError, "k=91 for group 0, which has 90 rows"),
        ({"batch_dims": 3}, ValueError, "batch_dims=3;"),
        ({"groups": [0]}, ValueError, "groups has shape"),
        ({"sample_weight": np.zeros(90)}, ValueError, "sample_weight is 0 for every row of group"),
        ({"sample_weight": -np.ones(90)}, ValueError, r"sample_weight\[0\] is -1"),
        ({"init": "kmeans++"}, ValueError, "init='kmeans[+][+]'; it must be 'k-means"),
        ({"init": np.zeros((3, 6))}, ValueError, "init has shape"),
        ({"init": np.zeros((3, 2, 3)), "n_init": 2}, ValueError, "n_init=2 with an array as init"),
        ({"n_init": 0}, ValueError, "n_init=0;"),
        ({"n_init": 65536}, ValueError, "n_init=65536; .* at least 1 and at most 65535"),
        ({"max_iter": 0}, ValueError, "max_iter=0;"),
        ({"tol": -1}, ValueError, "tol=-1.0;"),
        ({"tol": float("nan")}, ValueError, "tol=nan;"),
        ({"algorithm": "lloyd"}, ValueError, "algorithm='lloyd';"),
        ({"random_state": -1}, ValueError, "random_state=-1;"),
        ({"n_threads": 0}, ValueError, "n_threads=0;"),
        ({"max_memory": -1}, ValueError, "max_memory=-1;"),
        ({"progress": 1}, TypeError, "progress=1 is a int;"),
        ({"x": np.zeros((4, 0))}, ValueError, "x has shape"),
        ({"x": [[1j]]}, TypeError, "x has dtype complex128"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        _quantize(**options)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.sanitize
def test_data_that_is_not_finite(value: float, dtype: Any, grouped: bool) -> None:
    x = X.astype(dtype)
    x[17, 1, 2] = value
    with pytest.raises(ValueError, match=r"x holds NaN or infinity in row 17\b"):
        _quantize(x, groups=GROUPS if grouped else None)


# Large groups come first, and threads race: which bad row is met first is a matter of chance.
@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("call", ["quantize", "seed_centroids", "assign"])
@pytest.mark.sanitize
def test_of_several_bad_rows_the_first_of_the_first_group_is_named(
    call: str, n_threads: int
) -> None:
    sizes = np.array([400, 30, 300, 40, 200, 50, 600, 700])
    groups = np.repeat(np.arange(8), sizes)
    order = np.random.default_rng(3).permutation(len(groups))
    groups = groups[order]
    x = np.random.default_rng(4).normal(size=(len(groups), 24)).astype(np.float32)
    for group in (3, 4, 6, 7):
        x[np.flatnonzero(groups == group)[[-5, -1]], 7] = np.nan
    first = np.flatnonzero(groups == 3)[-5]
    options: dict[str, Any] = {"groups": groups, "n_threads": n_threads}
    arguments: tuple[Any, ...] = (x, 3)
    if call == "assign":
        arguments = (x, np.ones((8, 24), np.float32))
        options["centroid_groups"] = np.arange(8)
    for _ in range(5):
        with pytest.raises(ValueError, match=rf"NaN or infinity in row {first}\b"):
            getattr(ddkern, call)(*arguments, **options)


@pytest.mark.parametrize("n_threads", [1, 2, 8])
@pytest.mark.parametrize("rows", [(8000, 10_600), (10_600, 19_999), (32, 10_000)])
def test_of_several_bad_rows_of_a_group_the_first_is_named(
    rows: tuple[int, int], n_threads: int
) -> None:
    x = np.zeros((20_000, 8), np.float32)
    x[list(rows)] = np.inf
    for _ in range(3):
        with pytest.raises(ValueError, match=rf"NaN or infinity in row {rows[0]}\b"):
            ddkern.quantize(x, 3, init="random", n_threads=n_threads)


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_of_several_groups_too_large_for_gram_the_first_is_named(n_threads: int) -> None:
    sizes = np.array([20, 300, 500, 400])
    groups = np.repeat(np.arange(4), sizes)
    x = np.random.default_rng(4).normal(size=(len(groups), 8)).astype(np.float32)
    x[700] = np.nan
    with pytest.raises(ValueError, match="which needs .* for a group of 300 rows"):
        ddkern.quantize(
            x, 3, groups=groups, algorithm="gram", n_threads=n_threads, max_memory=300_000
        )


def test_integers_that_float64_cannot_hold() -> None:
    with pytest.raises(ValueError, match=r"^x .*(53|9007199254740993)"):
        _quantize(np.array([[0], [2**53 + 1]]), 1)


@pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning")
@pytest.mark.parametrize(
    ("level", "products"), [("avx512vnni", "float32"), ("avx512bf16", "bfloat16")]
)
def test_goes_over_to_finer_products(level: str, products: str) -> None:
    """Far from the centre bytes cannot tell neighbours apart; the result is the same."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1500, 64)).astype(np.float32)
    x[::2] += 60
    init = x[rng.choice(len(x), 40, replace=False)]
    options: dict[str, Any] = {"init": init, "max_iter": 6, "tol": 0, "algorithm": "streaming"}
    with forced_isa("base"):
        expected = ddkern.quantize(x, 40, **options)
    with forced_isa(level):
        found = ddkern.quantize(x, 40, **options)
        near = ddkern.quantize(rng.normal(size=(500, 64)).astype(np.float32), 4, max_iter=3)
    assert found.stats.products == (products,)
    assert near.stats.products == ("bytes",)
    assert expected.stats.products == ("float32",)
    assert_same_bits(found, expected)
