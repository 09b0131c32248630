# SPDX-License-Identifier: Apache-2.0
"""One answer, to the bit, however it is computed; and it is the answer of docs/numerics.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ddkern
from helpers.bits import assert_same_array_bits, assert_same_bits, fingerprint
from helpers.problems import as_bfloat16, cast
from reference import canonical

pytestmark = [
    pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::ddkern.EmptyCellWarning"),
]

ALGORITHMS = ("gram", "streaming")


@dataclass(frozen=True)
class Case:
    """One group and the options it is quantized with."""

    x: NDArray[Any]
    k: int
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, **variant: Any) -> ddkern.QuantizeResult:
        return ddkern.quantize(self.x, self.k, **{"random_state": 7, **self.options, **variant})


def blobs(seed: int, n: int, d: int, centres: int = 6, dtype: str = "float32") -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    means = 2 * rng.normal(size=(centres, d))
    return cast(means[rng.integers(0, centres, n)] + rng.normal(size=(n, d)), dtype)


def copies(seed: int, n: int, d: int, distinct: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(distinct, d)).astype(np.float32)
    return values[rng.integers(0, distinct, n)]


def far_start(x: NDArray[Any], k: int) -> NDArray[Any]:
    """Centroids of which all but the first are so far away that their cells are empty."""
    start = np.repeat(x[:1], k, axis=0).astype(canonical.stored(x).dtype)
    start[1:] += 1e3 * np.arange(1, k)[:, None]
    return start


def uneven(seed: int, n: int) -> NDArray[np.float64]:
    """Weights over many powers of ten, a tenth of them 0."""
    rng = np.random.default_rng(seed)
    return 10.0 ** rng.uniform(-6, 6, n) * (rng.random(n) > 0.1)


def scattered(seed: int, n: int, d: int, k: int) -> Case:
    """Start from centroids strewn so widely that cells go on losing their rows."""
    rng = np.random.default_rng(seed)
    x = np.rint(4 * rng.normal(size=(n, d))).astype(np.float32)
    start = np.rint(6 * rng.normal(size=(k, d))).astype(np.float32)
    return Case(x, k, {"init": start, "max_iter": 2})


def plateau(seed: int, n: int, d: int) -> NDArray[Any]:
    """Rows that float32 distances cannot tell apart beside one that is far away."""
    x = 1e-12 * np.random.default_rng(seed).normal(size=(n, d))
    x[0] = 1.0
    return x


@cache
def cases() -> dict[str, Case]:
    small = blobs(1, 90, 5)
    tall = blobs(2, 300, 3)
    wide = blobs(3, 60, 257)
    return {
        "one-row": Case(blobs(4, 1, 3), 1),
        "one-centroid": Case(small, 1),
        "two-centroids": Case(small, 2),
        "small": Case(small, 7),
        "tall": Case(tall, 12),
        "wide": Case(wide, 9),
        "as-many-as-rows": Case(blobs(5, 33, 4), 33),
        "one-feature": Case(blobs(6, 200, 1), 13),
        "lanes-15": Case(blobs(7, 65, 15), 5),
        "lanes-16": Case(blobs(8, 64, 16), 5),
        "lanes-17": Case(blobs(9, 63, 17), 5),
        "tile-31": Case(blobs(10, 31, 33), 11),
        "tile-32": Case(blobs(11, 32, 33), 12),
        "tile-33": Case(blobs(12, 33, 33), 13),
        "strict": Case(tall, 8, {"tol": 0.0}),
        "loose": Case(tall, 8, {"tol": 0.5}),
        "one-iteration": Case(tall, 8, {"max_iter": 1}),
        "random": Case(small, 9, {"init": "random"}),
        "restarts": Case(small, 7, {"n_init": 4}),
        "random-restarts": Case(small, 7, {"n_init": 3, "init": "random"}),
        "array": Case(small, 6, {"init": small[10:16] + np.float32(0.25)}),
        "repair": Case(small, 6, {"init": far_start(small, 6)}),
        "repair-past-the-end": Case(small, 6, {"init": far_start(small, 6), "max_iter": 1}),
        "repair-weighted": Case(
            small, 6, {"init": far_start(small, 6), "sample_weight": uneven(1, 90)}
        ),
        "repair-until-no-row-is-left": Case(
            copies(29, 30, 2, 3), 6, {"init": far_start(copies(29, 30, 2, 3), 6)}
        ),
        "emptied-in-the-last-iteration": scattered(52, 8, 3, 6),
        "emptied-in-the-last-iteration-again": scattered(80, 9, 2, 6),
        "one-unit-of-weight": Case(
            np.array([[0], [1], [-1]], np.float32), 3, {"sample_weight": [1.0, 2.0**-61, 2.0**-61]}
        ),
        "distances-underflow": Case(
            np.array([[1, 0], [1, 1e-170], [1, 2e-170], [0.5, 0], [1, 3e-170]]), 5
        ),
        # Repaired for as long as a repair may take past `max_iter`.
        "distances-nearly-underflow": Case(
            np.array([[1, 0], [1, 1e-155], [1, 3e-155], [1, 7e-155], [1, 8e-155]]),
            3,
            {"max_iter": 20},
        ),
        "distances-nearly-underflow-weighted": Case(
            np.array([[1, 0], [1, 1e-155], [1, 3e-155], [1, 7e-155], [1, 8e-155]]),
            3,
            {"sample_weight": [1.0, 0.3, 2.0, 0.7, 0.2], "max_iter": 20},
        ),
        "duplicates": Case(copies(13, 120, 6, 25), 20),
        "too-few-distinct": Case(copies(14, 50, 6, 4), 9),
        "too-few-distinct-random": Case(copies(14, 50, 6, 4), 9, {"init": "random"}),
        "all-equal": Case(np.full((40, 3), 0.1, np.float32), 5),
        "all-zero": Case(np.zeros((40, 3), np.float32), 3),
        "negative-zero": Case(np.array([[0.0], [-0.0], [1.0], [-0.0], [2.0]], np.float32), 3),
        "weighted": Case(small, 7, {"sample_weight": uneven(2, 90)}),
        "weighted-random": Case(small, 7, {"sample_weight": uneven(3, 90), "init": "random"}),
        "weighted-restarts": Case(small, 7, {"sample_weight": uneven(4, 90), "n_init": 3}),
        "weights-beyond-the-units": Case(
            small, 7, {"sample_weight": np.r_[1e-30, 1e9, np.full(30, 1.0), np.full(58, 1e-12)]}
        ),
        "integer-weights": Case(small, 7, {"sample_weight": np.arange(90) % 5}),
        "float64": Case(blobs(15, 90, 5, dtype="float64"), 7),
        "float64-weighted": Case(
            blobs(16, 90, 5, dtype="float64"), 7, {"sample_weight": uneven(5, 90)}
        ),
        "float64-plateau": Case(plateau(17, 60, 4), 8),
        "float32-plateau": Case(plateau(18, 60, 4).astype(np.float32), 8),
        "offset": Case((1e4 + blobs(19, 90, 8, dtype="float64")).astype(np.float32), 7),
        "huge": Case((3e37 * blobs(20, 90, 8, dtype="float64")).astype(np.float32), 7),
        "tiny": Case((1e-40 * blobs(21, 90, 8, dtype="float64")).astype(np.float32), 7),
        "mixed-scales": Case(
            (blobs(22, 90, 8, dtype="float64") * 10.0 ** np.arange(-36, 36, 9)).astype(np.float32),
            7,
        ),
        "uint8": Case(blobs(23, 90, 12, dtype="uint8"), 7),
        "int8": Case(blobs(24, 90, 12, dtype="uint8").view(np.int8), 7),
        "int32": Case(blobs(25, 90, 12, dtype="int32"), 7),
        "bool": Case(blobs(26, 90, 12) > 0, 7),
        "float16": Case(blobs(27, 90, 12, dtype="float16"), 7),
        "integers-in-float32": Case(np.rint(blobs(28, 90, 12) * 60).astype(np.float32), 7),
    }


@cache
def streamed(name: str) -> ddkern.QuantizeResult:
    """Return the result that all variants of a case are compared with."""
    return cases()[name].run(algorithm="streaming", n_threads=1)


@cache
def by_the_page(name: str) -> canonical.Fit:
    case = cases()[name]
    options = dict(case.options)
    weight = options.pop("sample_weight", None)
    return canonical.fit(
        case.x,
        case.k,
        seed=7,
        sample_weight=None if weight is None else np.asarray(weight, np.float64),
        **options,
    )


def every_case() -> list[Any]:
    sanitized = ("small", "wide", "repair-weighted", "too-few-distinct", "uint8", "float64")
    return [
        pytest.param(name, marks=[pytest.mark.sanitize] if name in sanitized else [])
        for name in cases()
    ]


# --- The definition -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", every_case())
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_result_is_that_of_the_page(isa: str, algorithm: str, name: str) -> None:
    case, expected = cases()[name], by_the_page(name)
    result = case.run(algorithm=algorithm, n_threads=2)
    if expected.seeds is not None and case.options.get("n_init", 1) == 1:
        seeds = ddkern.seed_centroids(
            case.x,
            case.k,
            random_state=7,
            algorithm=algorithm,
            **{o: v for o, v in case.options.items() if o in ("init", "sample_weight")},
        )
        assert_same_array_bits(seeds.indices, expected.seeds, "seeds")
        assert_same_array_bits(
            seeds.centroids, canonical.stored(case.x)[expected.seeds], "seeds' values"
        )
    assert_same_array_bits(result.distortion_history, expected.distortion_history, "history")
    assert result.n_iter.tolist() == [expected.n_iter]
    assert result.converged.tolist() == [expected.converged]
    assert_same_array_bits(result.assignment, expected.assignment, "assignment")
    assert_same_array_bits(result.centroids, expected.centroids, "centroids")
    assert_same_array_bits(result.weights, expected.weights, "weights")
    assert_same_array_bits(result.distortion, np.array([expected.distortion]), "distortion")
    assert_same_array_bits(result.inertia, np.array([expected.inertia]), "inertia")
    assert result.stats.cells_reseeded.tolist() == [expected.cells_reseeded]
    assert result.stats.restart.tolist() == [expected.restart]


def test_streams_follow_the_group_id_and_the_item_seed() -> None:
    x = blobs(30, 80, 4)
    ids = np.repeat(np.array([-5, 0, 1 << 40, 9]), 20)
    grouped = ddkern.quantize(x, 3, groups=ids, random_state=11)
    for place, group_id in enumerate([-5, 0, 9, 1 << 40]):
        own = x[ids == group_id]
        expected = canonical.fit(own, 3, seed=11, group_id=group_id)
        assert_same_array_bits(
            grouped.centroids[3 * place : 3 * place + 3], expected.centroids, f"group {group_id}"
        )
    seeds = np.array([3, 2**64 - 1, 0, 2**33], np.uint64)
    batch = ddkern.quantize(x.reshape(4, 20, 4), 3, batch_dims=1, random_state=seeds)
    for item, seed in enumerate(seeds):
        expected = canonical.fit(x.reshape(4, 20, 4)[item], 3, seed=int(seed))
        assert_same_array_bits(batch.centroids[item], expected.centroids, f"item {item}")


# --- Variants -------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "streaming": {"algorithm": "streaming", "n_threads": 1},
    "gram": {"algorithm": "gram", "n_threads": 1},
    "auto": {},
    "two-threads": {"algorithm": "streaming", "n_threads": 2},
    "three-threads": {"algorithm": "gram", "n_threads": 3},
    "eight-threads": {"algorithm": "streaming", "n_threads": 8},
    "eight-threads-gram": {"algorithm": "gram", "n_threads": 8},
    "no-memory": {"algorithm": "streaming", "n_threads": 2, "max_memory": 1},
    "little-memory": {"n_threads": 3, "max_memory": 1 << 14},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", every_case())
def test_variants_agree(variant: str, name: str) -> None:
    assert_same_bits(cases()[name].run(**VARIANTS[variant]), streamed(name))


@cache
def large_case(name: str) -> Case:
    """Sizes at which rows are split over threads, scores cached and groups streamed in parts."""
    rng = np.random.default_rng(40)
    if name == "rows":
        return Case(blobs(41, 2500, 40, centres=30), 37, {"max_iter": 25})
    if name == "features":
        return Case(blobs(42, 300, 1050, centres=30), 30, {"max_iter": 12})
    weight = rng.integers(0, 4, 1500) * rng.random(1500)
    return Case(blobs(43, 1500, 70, dtype="float64"), 50, {"sample_weight": weight, "max_iter": 8})


@cache
def large_fingerprint(name: str) -> str:
    return fingerprint(large_case(name).run(algorithm="streaming", n_threads=1))


@pytest.mark.parametrize("name", ["rows", "features", "weighted"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_large_problems_have_one_fingerprint(isa: str, algorithm: str, name: str) -> None:
    for n_threads in (1, 2, 8) if algorithm == "gram" else (1, 3, 8):
        result = large_case(name).run(algorithm=algorithm, n_threads=n_threads)
        assert fingerprint(result) == large_fingerprint(name), f"n_threads={n_threads}"


@pytest.mark.parametrize("name", ["rows", "features", "weighted"])
def test_budget_for_the_workspace_changes_no_bit(isa: str, name: str) -> None:
    for max_memory in (1, 1 << 20, 1 << 23):
        result = large_case(name).run(n_threads=2, max_memory=max_memory)
        assert fingerprint(result) == large_fingerprint(name), f"max_memory={max_memory}"


def test_two_runs_agree() -> None:
    assert_same_bits(large_case("rows").run(), large_case("rows").run())


def test_another_seed_gives_another_result() -> None:
    """The comparisons above would not notice a result that ignores its arguments; this does."""
    case = cases()["tall"]
    assert fingerprint(case.run(random_state=8)) != fingerprint(case.run(random_state=7))


# --- Batches --------------------------------------------------------------------------------------

SIZES = (1, 40, 33, 5, 200, 64, 2, 90)


@cache
def ragged() -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return rows, group ids, k by ascending id, and weights; rows of a group lie together."""
    x = np.concatenate([blobs(50 + i, size, 19) for i, size in enumerate(SIZES)])
    ids = np.repeat(np.arange(len(SIZES)) * 3 - 4, SIZES)
    k = np.minimum(SIZES, [1, 5, 3, 5, 20, 11, 2, 13])
    weight = np.random.default_rng(60).integers(1, 5, len(x)).astype(np.float64)
    return x, ids, k, weight


def parts(result: ddkern.QuantizeResult, rows: Any, group: int) -> dict[str, NDArray[Any]]:
    """Return what belongs to one group, with the assignment counted within it."""
    own = np.asarray(result.groups) == group
    place = int(np.flatnonzero(np.unique(result.groups) == group)[0])
    return {
        "centroids": result.centroids[own],
        "weights": result.weights[own],
        "assignment": result.assignment[rows] - int(np.argmax(own)),
        "distortion": result.distortion[place],
        "inertia": result.inertia[place],
        "n_iter": result.n_iter[place],
        "converged": result.converged[place],
        "history": result.distortion_history[place],
    }


def assert_same_parts(actual: dict[str, Any], expected: dict[str, Any], group: int) -> None:
    for name, value in expected.items():
        assert_same_array_bits(actual[name], value, f"group {group}: {name}")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_group_alone_is_group_in_a_batch(weighted: bool, algorithm: str, n_threads: int) -> None:
    x, ids, k, weight = ragged()
    options: dict[str, Any] = {
        "algorithm": algorithm,
        "n_threads": n_threads,
        "random_state": 5,
        "n_init": 2,
    }
    weights = {"sample_weight": weight} if weighted else {}
    together = ddkern.quantize(x, k, groups=ids, **weights, **options)
    for place, group in enumerate(np.unique(ids)):
        rows = np.flatnonzero(ids == group)
        own = {"sample_weight": weight[rows]} if weighted else {}
        alone = ddkern.quantize(x[rows], k[place], groups=ids[rows], **own, **options)
        assert_same_parts(
            parts(together, rows, group), parts(alone, np.arange(len(rows)), group), group
        )


def reversed_groups(ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Order rows by descending group."""
    return np.argsort(-ids, kind="stable")


def interleaved(ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Deal the rows of all groups out in turn."""
    rank = np.concatenate([np.arange(size) for size in SIZES])
    return np.lexsort((ids, rank))


def some_groups(ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Keep every other group."""
    return np.flatnonzero(np.isin(ids, np.unique(ids)[::2]))


@pytest.mark.sanitize
@pytest.mark.parametrize("arrange", [reversed_groups, interleaved, some_groups])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_place_and_neighbours_of_a_group_do_not_matter(
    arrange: Callable[[NDArray[np.int64]], NDArray[np.intp]], algorithm: str
) -> None:
    x, ids, k, weight = ragged()
    by_id = dict(zip(np.unique(ids).tolist(), k.tolist(), strict=True))
    expected = ddkern.quantize(x, by_id, groups=ids, sample_weight=weight, random_state=5)
    order = arrange(ids)
    kept = set(ids[order].tolist())
    result = ddkern.quantize(
        x[order],
        {group: count for group, count in by_id.items() if group in kept},
        groups=ids[order],
        sample_weight=weight[order],
        random_state=5,
        algorithm=algorithm,
        n_threads=2,
    )
    for group in sorted(kept):
        rows = np.flatnonzero(ids == group)
        moved = np.flatnonzero(ids[order] == group)
        assert_same_parts(parts(result, moved, group), parts(expected, rows, group), group)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_items_of_a_batch_are_calls_of_their_own(n_threads: int) -> None:
    x = blobs(61, 7 * 50, 6).reshape(7, 50, 2, 3)
    batch = ddkern.quantize(x, 5, batch_dims=1, random_state=4, n_threads=n_threads)
    for item in range(7):
        alone = ddkern.quantize(x[item], 5, random_state=4)
        for name in ("centroids", "weights", "assignment"):
            assert_same_array_bits(
                getattr(batch, name)[item], getattr(alone, name), f"item {item}: {name}"
            )
        assert_same_array_bits(batch.distortion[item : item + 1], alone.distortion, "distortion")


# --- Input types and layouts ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int8", "uint16", "int16", "bool"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_narrow_types_are_their_float32_values(isa: str, dtype: str, algorithm: str) -> None:
    rng = np.random.default_rng(70)
    x = (rng.normal(size=(150, 37)) * 30).astype(np.int8).astype(dtype)
    if dtype == "float16":
        x = (x.astype(np.float32) * np.float32(0.37)).astype(np.float16)
    expected = ddkern.quantize(x.astype(np.float32), 9, random_state=1, algorithm="streaming")
    assert_same_bits(ddkern.quantize(x, 9, random_state=1, algorithm=algorithm), expected)
    assert expected.centroids.dtype == np.float32


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bfloat16_is_its_float32_values(isa: str, algorithm: str) -> None:
    x = blobs(71, 150, 37, dtype="bfloat16")
    expected = ddkern.quantize(x, 9, random_state=1, algorithm="streaming")
    result = ddkern.quantize(as_bfloat16(x), 9, random_state=1, algorithm=algorithm)
    assert_same_bits(result, expected)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64"])
def test_wide_integers_are_their_float64_values(isa: str, dtype: str) -> None:
    top = min(np.iinfo(dtype).max, 2**53)
    x = np.random.default_rng(72).integers(0, top, (150, 9), dtype=dtype, endpoint=True)
    expected = ddkern.quantize(x.astype(np.float64), 9, random_state=1, algorithm="streaming")
    assert expected.centroids.dtype == np.float64
    for algorithm in ALGORITHMS:
        assert_same_bits(ddkern.quantize(x, 9, random_state=1, algorithm=algorithm), expected)


# --- What the caller's process was set to ---------------------------------------------------------


def test_flushed_denormals_in_the_calling_thread_change_nothing() -> None:
    torch = pytest.importorskip("torch")
    x = (np.random.default_rng(0).normal(size=(4000, 3)) * 1e-40).astype(np.float32)
    expected = fingerprint(ddkern.quantize(x, 7, random_state=0, n_threads=1))
    torch.set_flush_denormal(True)
    try:
        found = [fingerprint(ddkern.quantize(x, 7, random_state=0, n_threads=n)) for n in (1, 2)]
    finally:
        torch.set_flush_denormal(False)
    assert found == [expected, expected]


@pytest.mark.parametrize("exponent", [-540, 520])
def test_restarts_are_compared_where_distortions_leave_float64(exponent: int) -> None:
    x = np.random.default_rng(1).normal(size=(300, 2))
    expected = ddkern.quantize(x, 12, n_init=8, random_state=0)
    scaled = ddkern.quantize(np.ldexp(x, exponent), 12, n_init=8, random_state=0)
    assert_same_array_bits(scaled.centroids, np.ldexp(expected.centroids, exponent), "centroids")
