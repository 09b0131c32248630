# SPDX-License-Identifier: Apache-2.0
"""Inputs that break k-means elsewhere, one named test each."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ddkern
from helpers.answers import Answers
from helpers.bits import assert_same_bits, fingerprint
from reference import canonical

ALGORITHMS = ("gram", "streaming")

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def assert_exact(result: ddkern.QuantizeResult, x: NDArray[Any], answers: Answers) -> None:
    """Fail unless every row is assigned to the nearest returned centroid."""
    expected = answers.nearest(x, result.centroids)
    np.testing.assert_array_equal(result.assignment, expected)


def assert_honest(result: ddkern.QuantizeResult, x: NDArray[Any]) -> None:
    """Fail unless masses and distortion are those of the returned centroids and assignment."""
    counts = np.bincount(result.assignment, minlength=len(result.centroids))
    np.testing.assert_array_equal(result.weights, counts / len(x))
    scale = np.abs(x.astype(np.float64)).max() or 1.0
    difference = x / scale - result.centroids[result.assignment].astype(np.float64) / scale
    expected = (difference**2).sum(axis=1).mean()
    np.testing.assert_allclose(result.distortion.item() / scale**2, expected, rtol=1e-9)


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.sanitize
@every_algorithm
def test_float16_latents_whose_norms_overflow_float16(
    isa: str, algorithm: str, answers: Answers
) -> None:
    rng = np.random.default_rng(0)
    x = (5.5 * rng.normal(size=(70, 4, 32, 32))).astype(np.float16)
    rows = x.reshape(len(x), -1)
    assert (rows.astype(np.float64) ** 2).sum(axis=1).min() > np.finfo(np.float16).max
    result = ddkern.quantize(x, 10, algorithm=algorithm, random_state=0)
    assert result.centroids.shape == (10, 4, 32, 32)
    expected = answers.nearest(rows, result.centroids.reshape(10, -1))
    np.testing.assert_array_equal(result.assignment, expected)


@pytest.mark.sanitize
@every_algorithm
def test_tight_clusters_far_from_the_origin(isa: str, algorithm: str, answers: Answers) -> None:
    rng = np.random.default_rng(1)
    means = 1e4 + 0.3 * rng.normal(size=(8, 20))
    label = np.arange(400) % 8
    x = (means[label] + 0.01 * rng.normal(size=(400, 20))).astype(np.float32)
    result = ddkern.quantize(x, 8, algorithm=algorithm, random_state=0, n_init=5)
    assert_exact(result, x, answers)
    assert_honest(result, x)
    # Every cluster is one cell: the float32 grid at 1e4 is 0.001, a product's error is 10.
    assert len(set(zip(label.tolist(), result.assignment.tolist(), strict=True))) == 8


@every_algorithm
def test_all_rows_equal(isa: str, algorithm: str) -> None:
    x = np.full((100, 17), 0.3, np.float32)
    with pytest.warns(ddkern.EmptyCellWarning, match="fewer distinct rows than k"):
        result = ddkern.quantize(x, 4, algorithm=algorithm, random_state=0)
    np.testing.assert_array_equal(result.centroids, x[:4])
    np.testing.assert_array_equal(result.assignment, np.zeros(100))
    np.testing.assert_array_equal(result.weights, [1, 0, 0, 0])
    assert result.distortion.item() == 0.0
    assert result.converged.all()
    assert result.stats.empty_cells.tolist() == [3]


@pytest.mark.sanitize
@every_algorithm
@pytest.mark.parametrize("largest", [3e18, 3e38])
def test_values_whose_squares_overflow_float32(
    isa: str, algorithm: str, largest: float, answers: Answers
) -> None:
    rng = np.random.default_rng(2)
    x = (largest * rng.uniform(-1, 1, (200, 24))).astype(np.float32)
    result = ddkern.quantize(x, 12, algorithm=algorithm, random_state=0)
    assert np.isfinite(result.centroids).all()
    assert_exact(result, x, answers)
    assert_honest(result, x)


@every_algorithm
@pytest.mark.parametrize("largest", [1e150, 1e200, 1e-200])
def test_float64_values_whose_squares_leave_its_range(
    isa: str, algorithm: str, largest: float, answers: Answers
) -> None:
    rng = np.random.default_rng(3)
    x = largest * rng.uniform(-1, 1, (200, 24))
    result = ddkern.quantize(x, 12, algorithm=algorithm, random_state=0)
    assert np.isfinite(result.centroids).all()
    assert (result.weights > 0).all()
    assert result.n_iter.item() < 300
    assert_exact(result, x, answers)


@every_algorithm
@pytest.mark.parametrize("largest", [1e300, 1e-300])
def test_float64_values_too_large_or_small_are_an_error(algorithm: str, largest: float) -> None:
    x = largest * np.random.default_rng(3).uniform(-1, 1, (20, 4))
    with pytest.raises(ValueError, match=r"x .* magnitude .* scale the data"):
        ddkern.quantize(x, 3, algorithm=algorithm)


@pytest.mark.sanitize
@every_algorithm
def test_denormals(isa: str, algorithm: str, answers: Answers) -> None:
    rng = np.random.default_rng(4)
    steps = rng.integers(-50, 51, (200, 9))
    x = (steps * float(np.finfo(np.float32).smallest_subnormal)).astype(np.float32)
    result = ddkern.quantize(x, 10, algorithm=algorithm, random_state=0)
    assert_exact(result, x, answers)
    assert_honest(result, x)
    # Float16 denormals are ordinary float32 numbers: the same rows, scaled.
    half = (steps * 2.0**-24).astype(np.float16)
    assert_exact(ddkern.quantize(half, 10, algorithm=algorithm, random_state=0), half, answers)


@every_algorithm
def test_centroids_round_on_the_denormal_grid(isa: str, algorithm: str, answers: Answers) -> None:
    """Half a denormal is no relative error of 2^-24: a mean of 2.5 steps is stored as 2 steps."""
    step = float(np.finfo(np.float32).smallest_subnormal)
    for steps in ([2, 4, 3], [-2, -2, -4, -3], [-1, 3, 1, -3, 0]):
        x = (np.array(steps)[:, None] * step).astype(np.float32)
        for seed in range(4):
            result = ddkern.quantize(x, 2, algorithm=algorithm, random_state=seed)
            assert_exact(result, x, answers)


@every_algorithm
def test_denormals_beside_ordinary_values(isa: str, algorithm: str, answers: Answers) -> None:
    """Scaled by the large feature, the others vanish in float32; the assignment sees them."""
    rng = np.random.default_rng(5)
    x = np.zeros((64, 3), np.float32)
    x[:, 0] = 1e30
    x[:, 1] = (rng.integers(-5, 6, 64) * 1e-42).astype(np.float32)
    x[:, 2] = (rng.integers(-5, 6, 64) * 1e-45).astype(np.float32)
    n_distinct = len(np.unique(x, axis=0))
    result = ddkern.quantize(x, n_distinct, algorithm=algorithm, random_state=0)
    assert (result.weights > 0).all(), "a cell is empty although there are as many distinct rows"
    assert_exact(result, x, answers)
    np.testing.assert_array_equal(result.centroids[result.assignment], x)


# --- Counts ---------------------------------------------------------------------------------------


def test_more_rows_than_float32_can_count() -> None:
    n = 2**24 + 2**12
    x = np.full((n + 3, 1), 0.1, np.float32)
    x[[0, 77, n]] = 2.5
    start = time.perf_counter()
    result = ddkern.quantize(x, 2, random_state=0)
    seconds = time.perf_counter() - start
    few = int(result.assignment[0])
    assert sorted(result.centroids.ravel().tolist()) == sorted(x[:2].ravel().tolist())
    assert result.weights[few] == 3 / (n + 3)
    assert result.weights[1 - few] == n / (n + 3)
    assert np.flatnonzero(result.assignment == few).tolist() == [0, 77, n]
    assert result.distortion.item() == 0.0
    assert seconds < 30


def test_weights_add_up_past_what_float32_can_count() -> None:
    x = np.array([[0.0], [0.0], [1.0]], np.float32)
    weight = np.array([2.0**24, 1.0, 1.0])
    result = ddkern.quantize(x, 1, sample_weight=weight)
    assert result.centroids.item() == np.float32(1 / (2**24 + 2))
    assert result.inertia.item() == pytest.approx(1 - 1 / (2**24 + 2), rel=1e-7)


@every_algorithm
def test_ragged_groups_from_one_to_thousands_of_rows(
    isa: str, algorithm: str, answers: Answers
) -> None:
    rng = np.random.default_rng(6)
    sizes = np.array([1, 2, 3, 7, 31, 32, 33, 64, 250, 1, 1300, 5000, 2])
    ids = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(size=(len(ids), 6)).astype(np.float32)
    shuffled = rng.permutation(len(ids))
    k = np.minimum(sizes, 10)
    # A Gram matrix of 5000 rows is the streaming path's work done 50 times over.
    rows = shuffled if algorithm == "streaming" else shuffled[ids[shuffled] != 11]
    k = k if algorithm == "streaming" else np.delete(k, 11)
    result = ddkern.quantize(
        x[rows], k, groups=ids[rows], algorithm=algorithm, random_state=0, max_iter=300
    )
    np.testing.assert_array_equal(result.groups, np.repeat(np.unique(ids[rows]), k))
    for group in np.unique(ids[rows]):
        own = np.flatnonzero(ids[rows] == group)
        cells = np.flatnonzero(result.groups == group)
        expected = cells[0] + answers.nearest(x[rows][own], result.centroids[cells])
        np.testing.assert_array_equal(result.assignment[own], expected)
        assert result.weights[cells].sum() == pytest.approx(1, abs=1e-12)


# --- Layouts --------------------------------------------------------------------------------------


def reversed_rows(x: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(x[::-1])[::-1]


def reversed_features(x: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(x[..., ::-1])[..., ::-1]


def every_third_feature(x: NDArray[Any]) -> NDArray[Any]:
    wide = np.full((*x.shape[:-1], 3 * x.shape[-1]), np.nan).astype(x.dtype)
    wide[..., 1::3] = x
    return wide[..., 1::3]


def every_other_row_backwards(x: NDArray[Any]) -> NDArray[Any]:
    tall = np.zeros((2 * len(x), *x.shape[1:]), x.dtype)
    tall[::-2] = x
    return tall[::-2]


def rows_last(x: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)


def read_only(x: NDArray[Any]) -> NDArray[Any]:
    fixed = x.copy()
    fixed.flags.writeable = False
    return fixed


def unaligned(x: NDArray[Any]) -> NDArray[Any]:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(x.tobytes(), np.uint8)
    return raw[1:].view(x.dtype).reshape(x.shape)


LAYOUTS = [
    reversed_rows,
    reversed_features,
    every_third_feature,
    every_other_row_backwards,
    np.asfortranarray,
    rows_last,
    read_only,
    unaligned,
]


@pytest.mark.sanitize
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
def test_memory_layout_changes_nothing(layout: Any, dtype: str) -> None:
    rng = np.random.default_rng(7)
    x = np.abs(40 * rng.normal(size=(70, 3, 5, 2))).astype(dtype)
    twisted = layout(x)
    np.testing.assert_array_equal(twisted, x)
    before = twisted.copy()
    for algorithm in ALGORITHMS:
        expected = ddkern.quantize(x, 6, random_state=0, algorithm=algorithm)
        result = ddkern.quantize(twisted, 6, random_state=0, algorithm=algorithm)
        assert_same_bits(result, expected)
    np.testing.assert_array_equal(
        ddkern.assign(twisted, layout(expected.centroids)), expected.assignment
    )
    ids = rng.integers(0, 3, 70)
    assert_same_bits(
        ddkern.quantize(twisted, 2, groups=ids, random_state=0),
        ddkern.quantize(x, 2, groups=ids, random_state=0),
    )
    batch, twisted_batch = x.reshape(10, 7, 3, 5, 2), layout(x.reshape(10, 7, 3, 5, 2))
    assert_same_bits(
        ddkern.quantize(twisted_batch, 2, batch_dims=1, random_state=0),
        ddkern.quantize(batch, 2, batch_dims=1, random_state=0),
    )
    np.testing.assert_array_equal(twisted, before)


def test_one_row_seen_many_times() -> None:
    """A broadcast array has stride 0."""
    x = np.broadcast_to(np.arange(5, dtype=np.float32), (60, 5))
    result = ddkern.quantize(x, 1)
    np.testing.assert_array_equal(result.centroids, x[:1])
    assert result.distortion.item() == 0.0


_UNDER_A_LIMIT = """
import resource, sys
import numpy as np
import ddkern
from helpers.bits import fingerprint

rows = np.load(sys.argv[1], mmap_mode="r")
k, allowed = int(sys.argv[2]), int(sys.argv[3])
ddkern.quantize(rows[:100], 2, n_threads=2)
with open("/proc/self/status") as status:
    private = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (private + allowed, private + allowed))
try:
    np.array(rows)
except MemoryError:
    print("no room for a copy")
ids = np.arange(len(rows)) % 2
for groups in (None, ids):
    result = ddkern.quantize(
        rows, k, groups=groups, init="random", random_state=0, max_iter=2, tol=0.5, n_threads=2,
        max_memory=allowed // 4,
    )
    print(fingerprint(result))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits private memory by RLIMIT_DATA")
@pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning")
def test_memory_mapped_file_larger_than_the_private_memory_allowed(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    n, d, k, allowed = 48_000, 1024, 4, 96 << 20
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
    block = np.random.default_rng(8).normal(size=(1000, d)).astype(np.float32)
    for start in range(0, n, 1000):
        rows[start : start + 1000] = np.roll(block, start // 1000, axis=1)
    rows.flush()
    assert path.stat().st_size > 1.9 * allowed
    environment = {"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1", "PATH": ""}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _UNDER_A_LIMIT, str(path), str(k), str(allowed)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    options = {"init": "random", "random_state": 0, "max_iter": 2, "tol": 0.5}
    expected = [
        fingerprint(ddkern.quantize(rows, k, groups=groups, **options))
        for groups in (None, np.arange(n) % 2)
    ]
    assert run.stdout.split("\n")[:-1] == ["no room for a copy", *expected]


# --- Bad values -----------------------------------------------------------------------------------


@pytest.mark.sanitize
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("place", [(17, 0), (17, 36), (0, 5), (99, 36)])
def test_infinity_or_nan_is_an_error_that_names_the_row(
    isa: str, bad: float, dtype: str, place: tuple[int, int]
) -> None:
    x = np.random.default_rng(9).normal(size=(100, 37)).astype(dtype)
    centroids = x[40:43].copy()
    x[place] = bad
    message = rf"x holds NaN or infinity in row {place[0]}\b"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for algorithm in ALGORITHMS:
            with pytest.raises(ValueError, match=message):
                ddkern.quantize(x, 3, algorithm=algorithm)
            with pytest.raises(ValueError, match=message):
                ddkern.seed_centroids(x, 3, algorithm=algorithm)
        with pytest.raises(ValueError, match=message):
            ddkern.assign(x, centroids)


def test_the_row_named_is_the_callers() -> None:
    """With groups in any order, several bad rows, and weight 0: the first bad row of the input."""
    x = np.random.default_rng(10).normal(size=(60, 4)).astype(np.float32)
    x[41, 2] = np.inf
    ids = np.arange(60)[::-1] // 20
    weight = np.ones(60)
    weight[41] = 0
    for options in ({"groups": ids}, {"groups": ids, "sample_weight": weight}):
        with pytest.raises(ValueError, match=r"row 41\b"):
            ddkern.quantize(x, 2, **options)
    with pytest.raises(ValueError, match=r"row 41\b|item 2.*row 1\b|\(2, 1\)"):
        ddkern.quantize(x.reshape(3, 20, 4), 2, batch_dims=1)


def test_a_call_after_an_error_is_as_if_nothing_had_happened() -> None:
    x = np.random.default_rng(11).normal(size=(80, 5)).astype(np.float32)
    expected = fingerprint(ddkern.quantize(x, 4, random_state=0))
    spoiled = x.copy()
    spoiled[3, 3] = np.nan
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.raises(ValueError, match="row 3"):
        ddkern.quantize(spoiled, 4, random_state=0)
    assert fingerprint(ddkern.quantize(x, 4, random_state=0)) == expected
    np.testing.assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002


def test_nan_in_weights_or_init() -> None:
    x = np.random.default_rng(12).normal(size=(30, 4)).astype(np.float32)
    for bad in (np.nan, np.inf, -1.0):
        weight = np.ones(30)
        weight[21] = bad
        with pytest.raises(ValueError, match=r"sample_weight\[21\]"):
            ddkern.quantize(x, 3, sample_weight=weight)
    start = x[:3].copy()
    start[2, 1] = np.nan
    with pytest.raises(ValueError, match="init holds NaN or infinity in row 2"):
        ddkern.quantize(x, 3, init=start)
    with pytest.raises(ValueError, match="sample_weight is 0 for every row"):
        ddkern.quantize(x, 3, sample_weight=np.zeros(30))


# --- Weights --------------------------------------------------------------------------------------


@pytest.mark.sanitize
@every_algorithm
def test_rows_of_weight_zero_are_assigned_and_do_nothing_else(
    isa: str, algorithm: str, answers: Answers
) -> None:
    rng = np.random.default_rng(13)
    x = rng.normal(size=(120, 6)).astype(np.float32)
    weight = rng.uniform(0.5, 2, 120)
    weight[::3] = 0
    x[::3] *= 1e30
    result = ddkern.quantize(x, 8, sample_weight=weight, algorithm=algorithm, random_state=0)
    kept = weight > 0
    alone = ddkern.quantize(
        x[kept], 8, sample_weight=weight[kept], algorithm=algorithm, random_state=0
    )
    np.testing.assert_array_equal(result.centroids, alone.centroids)
    np.testing.assert_array_equal(result.weights, alone.weights)
    np.testing.assert_array_equal(result.distortion, alone.distortion)
    np.testing.assert_array_equal(result.assignment[kept], alone.assignment)
    assert_exact(result, x, answers)


@every_algorithm
@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e-20, 1e20, 1e300])
def test_huge_and_tiny_weights(isa: str, algorithm: str, scale: float) -> None:
    rng = np.random.default_rng(14)
    x = rng.normal(size=(100, 4)).astype(np.float32)
    weight = scale * rng.uniform(0.5, 1, 100)
    result = ddkern.quantize(x, 6, sample_weight=weight, algorithm=algorithm, random_state=0)
    mass = np.bincount(result.assignment, weight / weight.max(), minlength=6)
    np.testing.assert_allclose(result.weights, mass / mass.sum(), rtol=1e-11)
    means = [
        np.average(
            x[result.assignment == j], axis=0, weights=weight[result.assignment == j] / scale
        )
        for j in range(6)
    ]
    np.testing.assert_allclose(result.centroids, means, rtol=1e-5, atol=1e-6)


@every_algorithm
def test_one_weight_outweighs_all_others(isa: str, algorithm: str) -> None:
    """Rows too light to count still become centroids only where nothing heavier is left."""
    x = np.arange(8, dtype=np.float32)[:, None]
    weight = np.array([1e-30, 1e30, 1e-30, 1.0, 1e30, 1e-30, 1e-30, 1e-30])
    result = ddkern.quantize(x, 2, sample_weight=weight, algorithm=algorithm, random_state=0)
    np.testing.assert_array_equal(np.sort(result.centroids.ravel()), [1.0, 4.0])
    np.testing.assert_allclose(result.weights, [0.5, 0.5])


def test_more_centroids_than_weights_that_count() -> None:
    """Weights below 2^-62 of the total are no weights: docs/numerics.md, section 2."""
    x = np.arange(6, dtype=np.float32)[:, None]
    weight = np.array([1e-40, 1.0, 1e-40, 1e-40, 1.0, 1e-40])
    with pytest.raises(ValueError, match=r"k.*\b4\b.* 2 rows"):
        ddkern.quantize(x, 4, sample_weight=weight)
    with pytest.raises(ValueError, match=r"k.*\b4\b.* 2 rows"):
        ddkern.seed_centroids(x, 4, sample_weight=weight)


# --- Cells ----------------------------------------------------------------------------------------


@pytest.mark.sanitize
@every_algorithm
@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize(("distinct", "k"), [(1, 2), (4, 9), (25, 26), (40, 40)])
def test_more_centroids_than_distinct_rows(
    isa: str, algorithm: str, init: Any, distinct: int, k: int
) -> None:
    rng = np.random.default_rng(15)
    values = rng.normal(size=(distinct, 11)).astype(np.float32)
    x = values[np.concatenate([np.arange(distinct), rng.integers(0, distinct, 60)])]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = ddkern.quantize(x, k, init=init, algorithm=algorithm, random_state=0)
    assert [w.category for w in caught] == [ddkern.EmptyCellWarning] * (k > distinct)
    assert np.count_nonzero(result.weights) == distinct
    assert result.stats.empty_cells.tolist() == [k - distinct]
    np.testing.assert_array_equal(result.centroids[result.assignment], x)
    assert np.isfinite(result.centroids).all()
    assert result.distortion.item() == 0.0


@pytest.mark.sanitize
@every_algorithm
@pytest.mark.parametrize("max_iter", [1, 2, 300])
@pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning")
def test_empty_cells_are_repaired(
    isa: str, algorithm: str, max_iter: int, answers: Answers
) -> None:
    rng = np.random.default_rng(16)
    x = rng.normal(size=(150, 5)).astype(np.float32)
    start = np.full((9, 5), 1e6, np.float32)
    start[0] = x[0]
    result = ddkern.quantize(x, 9, init=start, algorithm=algorithm, max_iter=max_iter)
    assert (result.weights > 0).all()
    assert result.stats.cells_reseeded.item() >= 8
    assert_exact(result, x, answers)
    assert_honest(result, x)


@pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning")
def test_repair_takes_the_farthest_row() -> None:
    """By hand: all rows start at 9.5, from which 20 is farthest, and then 0; their mean is 8.4."""
    x = np.array([[0.0], [1.0], [10.0], [11.0], [20.0]], np.float32)
    start = np.array([[9.5], [1e6], [2e6]], np.float32)
    result = ddkern.quantize(x, 3, init=start, max_iter=1)
    expected = canonical.fit(x, 3, init=start, max_iter=1)
    assert result.stats.cells_reseeded.item() == 2
    np.testing.assert_array_equal(result.centroids, np.array([[8.4], [20], [0]], np.float32))
    np.testing.assert_array_equal(result.centroids, expected.centroids)


def test_seeds_repeat_no_value_while_others_remain() -> None:
    rng = np.random.default_rng(17)
    values = rng.normal(size=(30, 3)).astype(np.float32)
    x = values[np.concatenate([np.arange(30), np.zeros(500, int)])]
    for init in ("k-means++", "random"):
        for seed in range(5):
            seeds = ddkern.seed_centroids(x, 30, init=init, random_state=seed)
            assert len(np.unique(seeds.centroids, axis=0)) == 30
            np.testing.assert_array_equal(x[seeds.indices], seeds.centroids)


@pytest.mark.parametrize("n_features", [16, 64, 200, 1024])
def test_rounding_error_along_the_difference(isa: str, n_features: int) -> None:
    """Every feature is rounded by the same amount, along the line between two centroids.

    Then what rounding does to the difference of their distances is all that the bounds allow
    (equality in Cauchy and Schwarz), so that a bound a little too small decides for the wrong one.
    """
    # The third centroid only moves the centre off the middle of the first two.
    levels = np.array([1.0, -1.0, 1.2])
    centroids = np.repeat(levels[:, None], n_features, axis=1).astype(np.float32)
    sizes = np.outer([1e-5, 1e-4, 1e-3], np.linspace(0.02, 1, 40)).ravel()
    values = np.concatenate([-sizes, sizes])
    x = np.repeat(values[:, None], n_features, axis=1).astype(np.float32)
    expected = np.where(values > 0, 0, 1)
    np.testing.assert_array_equal(ddkern.assign(x, centroids), expected)


def test_one_of_two_squared_distances_overflows_float32(isa: str) -> None:
    """Rounding takes the nearer of two beyond the range, and the other not."""
    rng = np.random.default_rng(0)
    v = rng.uniform(1.2e19, 1.4e19, 1_000_000).astype(np.float32)
    w = np.sqrt(2.0**128 - 2.0**103 - v.astype(np.float64) ** 2).astype(np.float32)
    exact = v.astype(np.float64) ** 2 + w.astype(np.float64) ** 2
    with np.errstate(over="ignore"):
        rounded = v * v + w * w
    nearer = np.where(np.isinf(rounded), exact, np.inf).argmin()
    farther = np.where(np.isfinite(rounded), exact, 0).argmax()
    assert exact[nearer] < exact[farther]
    centroids = np.array([[-v[farther], -w[farther]], [v[nearer], w[nearer]]], np.float32)
    assert ddkern.assign(np.zeros((1, 2), np.float32), centroids).item() == 1


@pytest.mark.parametrize(("rest", "n_apart"), [(0.3, 11), (0.4, 7), (0.43, 5)])
def test_what_rounding_loses_adds_up(isa: str, rest: float, n_apart: int, answers: Answers) -> None:
    """Every feature of a row is rounded to the same side, away from the centroid that is nearest.

    Row w + rest lies nearer to w + 1 than to w + 2 in some features. Without the rest, as bytes
    have it (the largest values make their step 1), it is the other way round.
    """
    for seed in range(20):
        rng = np.random.default_rng(seed)
        whole = rng.integers(-3, 4, (200, 64))
        x = whole + rest
        x[0] = 115.4
        chosen = whole[rng.choice(np.arange(1, 200), 15, replace=False)]
        apart = np.stack([rng.permutation(64) < n_apart for _ in chosen])
        centroids = np.concatenate([chosen + 2 * apart, chosen + 1])
        # Their mirror images keep the centre at 0.
        x = np.concatenate([x, -x]).astype(np.float32)
        centroids = np.concatenate([centroids, -centroids]).astype(np.float32)
        found = ddkern.assign(x, centroids, n_threads=1)
        np.testing.assert_array_equal(found, answers.nearest(x, centroids), err_msg=f"{seed=}")


@pytest.mark.parametrize("n_large", [16, 256])
def test_products_of_a_few_large_features(isa: str, n_large: int, answers: Answers) -> None:
    """Rows along one line in the features that get more than bytes: sums as large as they may be.

    Some rows, none of those that a layout is made from, lie half as far again as the others, or
    thrice as far.
    """
    rng = np.random.default_rng(n_large)
    levels = rng.choice([1.0, -1.0, 0.97, -0.97, 0.5, -0.5, 0.03], 600)
    levels[1::64] *= 1.49
    levels[7::64] *= 3
    x = 1e-4 * rng.normal(size=(600, 8 * n_large))
    x[:, :n_large] = levels[:, None] * (1 + 1e-3 * rng.normal(size=(600, n_large)))
    x = np.concatenate([x, -x]).astype(np.float32)
    centroids = x[rng.choice(1200, 40, replace=False)] * np.float32(1.2)
    found = ddkern.assign(x, centroids, n_threads=1)
    np.testing.assert_array_equal(found, answers.nearest(x, centroids))


@pytest.mark.parametrize("n_features", [140_000, 300_000])
def test_products_of_very_many_features(isa: str, n_features: int) -> None:
    """Long rows along one line: their products are as large as integers can make them."""
    levels = np.array([1.0, -1.0, 0.5, -0.5, 0.9, -0.9, 0.98, -0.98])
    x = np.repeat(levels[:, None], n_features, axis=1).astype(np.float32)
    x[:, ::7] *= np.float32(0.99)
    np.testing.assert_array_equal(ddkern.assign(x, x), np.arange(len(x)))
    seeds = ddkern.seed_centroids(x, 8, random_state=0)
    assert sorted(seeds.indices.tolist()) == list(range(8))
