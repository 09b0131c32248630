# SPDX-License-Identifier: Apache-2.0
"""The CUDA quantizer's kernels, compiled for the host, give the bits of the CPU's.

The module `_simt` has the functions of `ddkern._cuda` and works on host memory. It is slow, so
everything here is small.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern.kmeans import device, shards
from helpers.bits import assert_same_array_bits, assert_same_bits
from helpers.device import (
    SEED,
    Case,
    assert_for_all,
    assert_same_as_on_the_cpu,
    assert_same_assignment_as_on_the_cpu,
    assert_same_few_as_on_the_cpu,
    assert_same_seeds_as_on_the_cpu,
    cases,
    family_cases,
    few_cases,
    few_family_cases,
    on_the_cpu,
    tall_cases,
    tall_seed_cases,
)
from helpers.problems import DTYPES
from helpers.simt import load_simt, simt_options

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::ddkern.EmptyCellWarning"),
]

ALGORITHMS = ("gram", "streaming")


@pytest.fixture(autouse=True)
def _through_simt() -> Iterator[None]:
    with device.use_module(load_simt()):
        yield


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", cases())
def test_quantize(name: str, algorithm: str) -> None:
    assert_same_as_on_the_cpu(cases()[name], "cpu", algorithm=algorithm)


@pytest.mark.parametrize("name", tall_cases())
def test_quantize_many_tiles(name: str) -> None:
    assert_same_as_on_the_cpu(tall_cases()[name], "cpu", algorithm="streaming")


@pytest.mark.parametrize("name", tall_seed_cases())
def test_seeds_of_many_tiles(name: str) -> None:
    assert_same_seeds_as_on_the_cpu(tall_seed_cases()[name], "cpu", algorithm="streaming")


def part_of_families(dtype: str, first: int) -> dict[str, Case]:
    """Return every third case, of all families.

    The stand-in takes a second for four of them. A GPU is given all (tests/cuda).
    """
    return dict(list(family_cases(dtype).items())[first % 3 :: 3])


def shared(dtype: str, first: int, algorithm: str) -> dict[str, Case]:
    """Return every other case of a part, of all families: the algorithms share them."""
    return dict([*part_of_families(dtype, first).items()][ALGORITHMS.index(algorithm) :: 2])


# What a device may do that the stand-in does not do by itself: products off by all that their bound
# allows, threads in another order, copies that arrive as late as they may.
TRIALS = {
    "products-above": {"mma_error": 1, "seed": 1},
    "products-below": {"mma_error": -1, "late_copies": True},
    "products-apart": {"mma_error": 2, "seed": 7, "late_copies": True},
}
TRIED = ("tall", "wide", "many-centroids", "duplicates", "ragged-shuffled", "weighted-restarts")
TRIED_LONG = ("long-20", "long-50", "long-weighted", "long-array", "aligned", "float64-long")


# Of the three trials, each case and algorithm has one or two; the others are the other algorithm's.
@pytest.mark.parametrize(
    ("trial", "name", "algorithm"),
    [
        (trial, name, ALGORITHMS[(i + j) % 2])
        for i, name in enumerate([*TRIED, *TRIED_LONG])
        for j, trial in enumerate(TRIALS)
    ],
)
def test_quantize_on_trial(trial: str, name: str, algorithm: str) -> None:
    with simt_options(**TRIALS[trial]):
        assert_same_as_on_the_cpu(cases()[name], "cpu", algorithm=algorithm)


# Rows and centroids of small integers are packed without loss: nothing but the bound of the
# products is between them and a wrong answer.
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("trial", TRIALS)
def test_families_on_trial(trial: str, algorithm: str) -> None:
    with simt_options(**TRIALS[trial]):
        assert_for_all(
            shared("uint8", [*TRIALS].index(trial), algorithm),
            lambda case: assert_same_as_on_the_cpu(case, "cpu", algorithm=algorithm),
        )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", [name for name, case in cases().items() if case.draws])
def test_seed_centroids(name: str, algorithm: str) -> None:
    assert_same_seeds_as_on_the_cpu(cases()[name], "cpu", algorithm=algorithm)


@pytest.mark.parametrize("name", cases())
def test_assign(name: str) -> None:
    assert_same_assignment_as_on_the_cpu(cases()[name], "cpu")


# Rows of 16 bits are made float32 before a kernel sees them.
CONVERTED = [
    pytest.param(dtype, marks=pytest.mark.slow if dtype in {"float16", "bfloat16"} else ())
    for dtype in DTYPES
]


@pytest.mark.parametrize("dtype", CONVERTED)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_quantize_families(dtype: str, algorithm: str) -> None:
    assert_for_all(
        shared(dtype, DTYPES.index(dtype), algorithm),
        lambda case: assert_same_as_on_the_cpu(case, "cpu", algorithm=algorithm),
    )


@pytest.mark.parametrize("dtype", CONVERTED)
def test_assign_families(dtype: str) -> None:
    assert_for_all(
        part_of_families(dtype, 1 + DTYPES.index(dtype)),
        lambda case: assert_same_assignment_as_on_the_cpu(case, "cpu"),
    )


@pytest.mark.parametrize("name", few_cases())
def test_nearest_few(name: str) -> None:
    assert_same_few_as_on_the_cpu(few_cases()[name], "cpu")


def test_nearest_few_without_distances() -> None:
    case = few_cases()["groups"]
    options = {"n_nearest": 3, **case.options}
    found = ddkern.assign(torch.from_numpy(case.x), case.centroids, **options)
    assert_same_array_bits(found, ddkern.assign(case.x, case.centroids, **options), "assignment")


@pytest.mark.parametrize("dtype", CONVERTED)
def test_nearest_few_families(dtype: str) -> None:
    named = list(few_family_cases(dtype).items())[DTYPES.index(dtype) % 5 :: 5]
    assert_for_all(dict(named), lambda case: assert_same_few_as_on_the_cpu(case, "cpu"))


@pytest.mark.parametrize("trial", TRIALS)
def test_nearest_few_on_trial(trial: str) -> None:
    """Small integers are packed without loss: the bound is all that keeps a column on the list."""
    named = dict(list(few_family_cases("uint8").items())[[*TRIALS].index(trial) :: 5])
    named["grid"] = few_cases()["grid"]
    with simt_options(**TRIALS[trial]):
        assert_for_all(named, lambda case: assert_same_few_as_on_the_cpu(case, "cpu"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["edge-33x17", "edge-129x129", "long-20", "long-300"])
def test_little_shared_memory(name: str, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDKERN_CUDA_VARIANT", "sm80")
    assert_same_as_on_the_cpu(cases()[name], "cpu", algorithm=algorithm)


@pytest.mark.parametrize("name", ["ragged-shuffled", "ragged-weighted", "batch-seeds", "uint8"])
def test_rows_of_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads launch kernels, each for the groups that it has been given."""
    monkeypatch.setattr(shards, "_LEAST_BYTES", 1)
    case = cases()[name]
    options = {"random_state": SEED, **case.options, "device": ["cpu:0", "cpu:1"]}
    assert_same_bits(ddkern.quantize(case.x, case.k, **options), on_the_cpu(case))


def test_fewer_rows_than_centroids() -> None:
    rng = np.random.default_rng(3)
    x, centroids = rng.normal(size=(4, 5)), rng.normal(size=(9, 5))
    ids, owners = np.array([0, 0, 0, 2]), np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    for options in ({}, {"groups": ids, "centroid_groups": owners}):
        here = ddkern.assign(torch.from_numpy(x), centroids, return_distance=True, **options)
        there = ddkern.assign(x, centroids, return_distance=True, **options)
        for name, a, e in zip(("assignment", "distance"), here, there, strict=True):
            assert_same_array_bits(a, e, name)


def test_strided_rows() -> None:
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(80, 40)).astype(np.float32))
    for view in (x[::2], x[3:, 5:22], x[:, :1], x[:1].expand(30, 40)):
        options = {"k": min(3, len(view)), "random_state": 0}
        assert_same_bits(ddkern.quantize(view, **options), ddkern.quantize(view.numpy(), **options))


@pytest.mark.parametrize("max_memory", [1 << 22, 1 << 26])
def test_budget_changes_no_bit(max_memory: int) -> None:
    assert_same_as_on_the_cpu(cases()["ragged"], "cpu", max_memory=max_memory)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bad_rows_are_named(algorithm: str) -> None:
    ids = np.arange(50) % 2
    for value in (np.nan, np.inf, -np.inf):
        x = np.ones((50, 20), np.float32)
        x[31, 19] = value
        for rows in (x, torch.from_numpy(x)):
            with pytest.raises(ValueError, match="x holds NaN or infinity in row 31; every value"):
                ddkern.quantize(rows, 1, groups=ids, algorithm=algorithm)


def test_magnitudes_that_float64_cannot_square() -> None:
    x = np.full((5, 2), 1e300)
    for rows in (x, torch.from_numpy(x)):
        with pytest.raises(ValueError, match="as its largest magnitude in a group"):
            ddkern.quantize(rows, 1)


@pytest.mark.parametrize(
    ("init", "n", "n_features"), [("k-means++", 500, 300), ("random", 4000, 2)]
)
def test_signals_are_heard_between_steps_of_the_seeding(init: Any, n: int, n_features: int) -> None:
    def hear(*_: object) -> None:
        raise TimeoutError("heard")

    x = torch.from_numpy(np.random.default_rng(3).normal(size=(n, n_features)).astype("f4"))
    before = signal.signal(signal.SIGALRM, hear)
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(TimeoutError, match="heard"):
            ddkern.seed_centroids(x, n - 10, init=init, algorithm="streaming", random_state=0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # All steps take the stand-in far longer.
    assert time.monotonic() - start < 2


def test_progress_and_its_errors() -> None:
    seen: list[ddkern.Progress] = []
    ids = np.arange(40) // 10
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(40, 3)))
    ddkern.quantize(x, 2, groups=ids, progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (4, 4)

    def stop(progress: ddkern.Progress) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        ddkern.quantize(x, 2, groups=ids, progress=stop)
