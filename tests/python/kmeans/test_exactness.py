# SPDX-License-Identifier: Apache-2.0
"""Assignments equal the oracle's, with no tolerance, for every variant."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ddkern
from helpers import cifar10
from helpers.answers import Answers
from helpers.isa import LEVELS
from helpers.problems import DTYPES, Problem, problems

pytestmark = [
    pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::ddkern.EmptyCellWarning"),
]

ALGORITHMS = ("gram", "streaming")


def numbered(dtype: str) -> list[tuple[int, Problem]]:
    """Return all problems of float32, and a third of those of types that become it, or float64."""
    every = list(enumerate(problems(dtype)))
    return every if dtype == "float32" else every[DTYPES.index(dtype) % 3 :: 3]


def shared(dtype: str, isa: str, algorithm: str) -> list[tuple[int, Problem]]:
    """Return every other one: a level's two algorithms share them, and take turns over levels."""
    return numbered(dtype)[(LEVELS.index(isa) + ALGORITHMS.index(algorithm)) % 2 :: 2]


def require_none_wrong(wrong: dict[str, int], n_problems: int) -> None:
    """Fail with the names of the problems that have wrong rows, fewest rows first."""
    assert n_problems >= 125
    named = ", ".join(f"{name} ({rows} rows)" for name, rows in list(wrong.items())[:8])
    assert not wrong, f"{len(wrong)} of {n_problems} problems have wrong assignments: {named}"


def some_threads(number: int) -> int:
    """Return 2 for one problem in eight: waking a thread costs more than most of them."""
    return 2 if number % 8 == 0 else 1


@cache
def cifar10_images(n: int) -> NDArray[np.uint8]:
    """Return the first `n` training images of every class, decoded once."""
    return cifar10.train_images(cifar10.rows_of_classes(n))


def count_wrong(actual: Any, expected: NDArray[np.int64]) -> int:
    """Return how many entries differ; every one counts as wrong when the shapes do."""
    actual = np.asarray(actual)
    return int((actual != expected).sum()) if actual.shape == expected.shape else expected.size


def quantize_problem(problem: Problem, number: int, **options: Any) -> ddkern.QuantizeResult:
    """Run a few iterations on `problem`; its number picks the start and the iterations."""
    n = len(problem.x)
    k = min(n, len(problem.centroids))
    init = ("k-means++", "random", problem.centroids[:k])[number % 3]
    return ddkern.quantize(
        problem.rows, k, init=init, max_iter=1 + number % 4, random_state=number, **options
    )


def test_every_problem_is_quantized_at_every_level_and_by_every_algorithm() -> None:
    for dtype in DTYPES:
        every = [number for number, _ in numbered(dtype)]
        parts = {
            (isa, algorithm): [number for number, _ in shared(dtype, isa, algorithm)]
            for isa in LEVELS
            for algorithm in ALGORITHMS
        }
        for isa in LEVELS:
            assert sorted(parts[isa, "gram"] + parts[isa, "streaming"]) == every
        for algorithm in ALGORITHMS:
            assert sorted(parts["base", algorithm] + parts["avx2", algorithm]) == every
    for isa in LEVELS:
        for algorithm in ALGORITHMS:
            assert sum(len(shared(dtype, isa, algorithm)) for dtype in DTYPES) >= 1000


@pytest.mark.parametrize("dtype", DTYPES)
def test_assign(isa: str, dtype: str, answers: Answers) -> None:
    wrong = {}
    for number, problem in numbered(dtype):
        found = ddkern.assign(problem.rows, problem.centroids, n_threads=some_threads(number))
        rows = count_wrong(found, answers.nearest(problem.x, problem.centroids))
        if rows:
            wrong[problem.name] = rows
    require_none_wrong(wrong, len(numbered(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_quantize(isa: str, algorithm: str, dtype: str, answers: Answers) -> None:
    """The returned assignment is to the returned centroids, not to those before."""
    wrong = {}
    chosen = shared(dtype, isa, algorithm)
    for number, problem in chosen:
        result = quantize_problem(
            problem, number, algorithm=algorithm, n_threads=some_threads(number)
        )
        expected = answers.nearest(problem.x, np.asarray(result.centroids))
        rows = count_wrong(result.assignment, expected)
        if rows:
            wrong[problem.name] = rows
    require_none_wrong(wrong, len(chosen))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_scores_as_wrong_as_their_bounds_allow(
    isa: str, algorithm: str, dtype: str, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fast score off by its full error bound: nothing changes, and the rechecks show it."""
    rechecked = {"": 0, "closer": 0, "apart": 0}
    wrong = {}
    for number, problem in numbered(dtype)[::3]:
        for mislead in rechecked:
            monkeypatch.setenv("DDKERN_DEBUG_MISLEAD", mislead)
            result = quantize_problem(problem, number, algorithm=algorithm, n_threads=1)
            rechecked[mislead] += int(result.stats.rows_rechecked.sum())
            expected = answers.nearest(problem.x, np.asarray(result.centroids))
            rows = count_wrong(result.assignment, expected)
            if algorithm == "streaming":  # which `assign` does not ask for: once is enough
                rows += count_wrong(
                    ddkern.assign(problem.rows, problem.centroids, n_threads=1),
                    answers.nearest(problem.x, problem.centroids),
                )
            if rows:
                wrong[problem.name, mislead] = rows
    assert not wrong, f"wrong under misleading scores: {list(wrong.items())[:8]}"
    assert rechecked["closer"] > rechecked[""] > rechecked["apart"], "nothing was misleading"


@pytest.mark.parametrize("dtype", DTYPES)
def test_n_nearest(isa: str, dtype: str, answers: Answers) -> None:
    for _, problem in numbered(dtype)[::6]:
        k = len(problem.centroids)
        wanted = {min(2, k), min(5, k), k if k <= 27 else 1}
        nearest = answers.nearest(problem.x, problem.centroids, max(wanted))
        nearest = nearest.reshape(len(problem.x), -1)
        for n_nearest in wanted:
            found, distance = ddkern.assign(
                problem.rows,
                problem.centroids,
                n_nearest=n_nearest,
                return_distance=True,
                n_threads=1,
            )
            expected = nearest[:, 0] if n_nearest == 1 else nearest[:, :n_nearest]
            assert count_wrong(found, expected) == 0, f"{problem.name}, n_nearest={n_nearest}"
            chosen = problem.centroids[expected].astype(np.float64)
            rows = problem.x.astype(np.float64).reshape(
                (len(problem.x),) + (1,) * (expected.ndim - 1) + (-1,)
            )
            np.testing.assert_allclose(
                distance, np.linalg.norm(rows - chosen, axis=-1), rtol=1e-12, err_msg=problem.name
            )


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_representative_subset(isa: str, algorithm: str, dtype: str, answers: Answers) -> None:
    """One problem in 46, of all families and sizes: few enough to run under the sanitizers."""
    for number, problem in shared(dtype, isa, algorithm)[::23]:
        found = ddkern.assign(problem.rows, problem.centroids, n_threads=2)
        expected = answers.nearest(problem.x, problem.centroids)
        assert count_wrong(found, expected) == 0, problem.name
        result = quantize_problem(problem, number, algorithm=algorithm, n_threads=2)
        expected = answers.nearest(problem.x, np.asarray(result.centroids))
        assert count_wrong(result.assignment, expected) == 0, problem.name


@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
@pytest.mark.parametrize("n", [1, 31, 32, 33])
def test_as_many_centroids_as_rows(isa: str, algorithm: str, n: int) -> None:
    """With k = n distinct rows every row ends as its own centroid."""
    x = np.random.default_rng(n).normal(size=(n, 7)).astype(np.float32)
    result = ddkern.quantize(x, n, algorithm=algorithm, random_state=0)
    np.testing.assert_array_equal(result.centroids[result.assignment], x)
    np.testing.assert_array_equal(np.sort(result.assignment), np.arange(n))
    assert result.distortion.item() == 0.0


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_empty_input_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x has shape .* empty"):
        ddkern.quantize(np.empty(shape, np.float32), 1)
    with pytest.raises(ValueError, match=r"x has shape .* empty"):
        ddkern.assign(np.empty(shape, np.float32), np.zeros((1, *shape[1:]), np.float32))


# Whole classes take half a minute at `base`.
@pytest.mark.parametrize(
    ("n", "k"), [(500, 10), (500, 50), pytest.param(5000, 10, marks=pytest.mark.slow)]
)
def test_cifar10_classes(isa: str, n: int, k: int, answers: Answers) -> None:
    """All ten classes in one call, exact against the centroids it returns."""
    rows = cifar10.rows_of_classes(n)
    images, labels = cifar10_images(n), cifar10.train_labels()[rows]
    first = np.concatenate([np.flatnonzero(labels == c)[:k] for c in range(10)])
    result = ddkern.quantize(
        images, k, groups=labels, init=images[first].astype(np.float32), max_iter=1
    )
    for c in range(10):
        own = np.flatnonzero(labels == c)
        assert len(own) == n
        pixels = images[own].reshape(len(own), -1)
        centroids = result.centroids[c * k : (c + 1) * k].reshape(k, -1)
        expected = c * k + answers.nearest(pixels, centroids)
        assert count_wrong(result.assignment[own], expected) == 0, f"class {c}"
    found = ddkern.assign(images, result.centroids, groups=labels, centroid_groups=result.groups)
    np.testing.assert_array_equal(found, result.assignment)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cifar10_seeded(isa: str, algorithm: str, answers: Answers) -> None:
    """Part of one class from k-means++ to convergence, in pixels and in float32."""
    pixels = cifar10.class_pixels(5, 300)
    scaled = (pixels / 255).astype(np.float32)
    for x in (pixels, scaled):
        result = ddkern.quantize(x, 20, algorithm=algorithm, random_state=1, max_iter=4)
        expected = answers.nearest(x, result.centroids)
        assert count_wrong(result.assignment, expected) == 0
