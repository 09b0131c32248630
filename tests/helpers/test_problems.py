# SPDX-License-Identifier: Apache-2.0
"""The problems must be valid, many, and as hard as they claim."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.answers import Answers
from helpers.problems import DTYPES, FAMILIES, FEATURES, ROWS, cast, one_step, problems
from reference import oracle


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_are_enough_valid_problems(dtype: str) -> None:
    found = problems(dtype)
    assert len({p.name for p in found}) == len(found) >= 500
    assert {p.x.shape[0] for p in found} >= set(ROWS)
    assert {p.x.shape[1] for p in found} >= set(FEATURES)
    for p in found:
        assert np.isfinite(p.x.astype(np.float64)).all(), p.name
        assert np.isfinite(p.centroids).all(), p.name
        assert p.x.shape[1] == p.centroids.shape[1], p.name


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_hard_families_need_exact_arithmetic(dtype: str) -> None:
    for family in ("hidden_ties", "integer_grid"):
        counts = oracle.Counts()
        for p in problems(dtype):
            if p.name.startswith(family):
                oracle.nearest(p.x, p.centroids, counts)
        assert counts.exact > 300, family


def test_float32_arithmetic_gets_some_rows_wrong() -> None:
    """What the exactness tests compare with is not what a plain float32 product gives."""
    wrong = dict.fromkeys((f.__name__ for f in FAMILIES), 0)
    for p in problems("float32"):
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            scores = (p.centroids**2).sum(axis=1) - 2 * p.x @ p.centroids.T
        differ = scores.argmin(axis=1) != oracle.nearest(p.x, p.centroids)
        wrong[p.name.split("-", maxsplit=1)[0]] += int(differ.sum())
    for family in ("near_ties", "twin_centroids", "hidden_ties", "far_offset", "any_scale"):
        assert wrong[family] > 0, family


def test_bfloat16_values_fit_sixteen_bits() -> None:
    values = cast(np.random.default_rng(0).normal(size=1000), "bfloat16")
    steps = np.resize(np.array([-1, 0, 1]), 1000)
    moved = one_step(values, steps, "bfloat16")
    assert not np.any(moved.view(np.uint32) & 0xFFFF)
    np.testing.assert_array_equal(moved != values, steps != 0)


def test_answers_tell_inputs_apart() -> None:
    answers = Answers()
    x = np.array([[0.0], [3.0]])
    centroids = np.array([[0.0], [3.0]])
    np.testing.assert_array_equal(answers.nearest(x, centroids), [0, 1])
    np.testing.assert_array_equal(answers.nearest(x, centroids[::-1]), [1, 0])
    np.testing.assert_array_equal(answers.nearest(x, centroids, 2), [[0, 1], [1, 0]])
    x[0] = 9.0
    np.testing.assert_array_equal(answers.nearest(x, centroids), [1, 1])
    fixed = np.array([[5.0]])
    fixed.flags.writeable = False
    np.testing.assert_array_equal(answers.nearest(fixed, centroids), [1])
    np.testing.assert_array_equal(answers.nearest(fixed, centroids[::-1]), [0])
