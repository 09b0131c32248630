# SPDX-License-Identifier: Apache-2.0
"""The comparison helpers must be able to fail."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from helpers.bits import assert_same_array_bits, assert_same_bits, fingerprint


@dataclass(frozen=True)
class Result:
    centroids: Any = field(default_factory=lambda: np.array([[0.0, 1.0]], np.float32))
    weights: Any = field(default_factory=lambda: np.array([1.0]))
    groups: Any = field(default_factory=lambda: np.array([0]))
    assignment: Any = field(default_factory=lambda: np.array([0, 0, 0]))
    distortion: Any = field(default_factory=lambda: np.array([0.5]))
    distortion_history: Any = field(default_factory=lambda: (np.array([2.0, 1.0]),))
    inertia: Any = field(default_factory=lambda: np.array([1.5]))
    n_iter: Any = field(default_factory=lambda: np.array([2]))
    converged: Any = field(default_factory=lambda: np.array([True]))


def test_equal_results_pass() -> None:
    assert_same_bits(Result(), Result())
    assert fingerprint(Result()) == fingerprint(Result())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("centroids", np.array([[-0.0, 1.0]], np.float32)),
        ("centroids", np.array([[0.0, 1.0]], np.float64)),
        ("weights", np.array([np.nextafter(1.0, 2.0)])),
        ("groups", np.array([1])),
        ("assignment", np.array([0, 1, 0])),
        ("distortion", np.array([np.nextafter(0.5, 1.0)])),
        ("distortion_history", (np.array([2.0]),)),
        ("distortion_history", (np.array([2.0, np.nextafter(1.0, 2.0)]),)),
        ("inertia", np.array([1.25])),
        ("n_iter", np.array([3])),
        ("converged", np.array([False])),
    ],
)
def test_any_other_bit_fails_and_is_named(name: str, value: Any) -> None:
    other = replace(Result(), **{name: value})
    with pytest.raises(AssertionError, match=f"^{name}: "):
        assert_same_bits(other, Result())
    in_fingerprint = name in ("centroids", "weights", "assignment")
    assert (fingerprint(other) != fingerprint(Result())) == in_fingerprint


def test_the_first_difference_is_located() -> None:
    a = np.arange(6.0).reshape(2, 3)
    b = a.copy()
    b[1, 1] = 7.0
    with pytest.raises(AssertionError, match=r"1 of 6 values differ .* \(1, 1\)"):
        assert_same_array_bits(a, b, "a")


def test_nan_equals_itself() -> None:
    assert_same_array_bits(np.array([np.nan]), np.array([np.nan]), "nan")
