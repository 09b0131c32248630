# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddkern import checks


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_integers_of_any_kind(value: Any) -> None:
    count = checks.as_count("k", value)
    assert type(count) is int
    assert count == 3


@pytest.mark.parametrize("value", [True, np.True_, 3.0, np.float32(3), "3", None, [3]])
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^n_init=.* is a \w+; it must be an integer of at least"):
        checks.as_count("n_init", value)


@pytest.mark.parametrize("value", [0, -1, np.int64(-5)])
def test_too_small(value: Any) -> None:
    with pytest.raises(ValueError, match=f"^max_iter={value}; it must be .* at least 1$"):
        checks.as_count("max_iter", value)


def test_too_large() -> None:
    assert checks.as_count("n_init", 9, at_most=9) == 9
    rule = "it must be an integer of at least 1 and at most 9"
    with pytest.raises(ValueError, match=f"^n_init=10; {rule}$"):
        checks.as_count("n_init", 10, at_most=9)
    with pytest.raises(TypeError, match=f"^n_init=2.0 is a float; {rule}$"):
        checks.as_count("n_init", 2.0, at_most=9)


@pytest.mark.parametrize("value", [0, 1e-4, np.float32(0.5), 3])
def test_tolerances(value: Any) -> None:
    assert checks.as_number("tol", value, at_least=0) == value


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf")])
def test_wrong_tolerance(value: float) -> None:
    with pytest.raises(ValueError, match="^tol=.*; it must be a finite number of at least 0$"):
        checks.as_number("tol", value, at_least=0)


@pytest.mark.parametrize("value", [None, "1e-4", True, [1, 2], 1j])
def test_tolerance_of_wrong_type(value: Any) -> None:
    with pytest.raises(TypeError, match="^tol=.* is a "):
        checks.as_number("tol", value, at_least=0)


def test_choice() -> None:
    assert checks.check_choice("algorithm", "gram", ("auto", "gram")) == "gram"
    with pytest.raises(ValueError, match="^algorithm='gramm'; it must be one of 'auto', 'gram'$"):
        checks.check_choice("algorithm", "gramm", ("auto", "gram"))
    with pytest.raises(TypeError, match="^algorithm is a NoneType; it must be one of"):
        checks.check_choice("algorithm", None, ("auto", "gram"))


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_seeds(seed: int) -> None:
    assert checks.as_seed("random_state", seed) == seed


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"^seeds={seed}; a seed .*0 <= seed < 2\*\*64"):
        checks.as_seed("seeds", seed)


def test_seed_of_wrong_type() -> None:
    with pytest.raises(TypeError, match=r"^random_state=1\.5 is a float"):
        checks.as_seed("random_state", 1.5)


@pytest.mark.parametrize(
    ("value", "error"),
    [(float("nan"), ValueError), (float("inf"), ValueError), (-1, ValueError), ("1", TypeError)],
)
def test_numbers_are_checked(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="width="):
        checks.as_number("width", value, at_least=0)


def test_image_sizes() -> None:
    assert checks.as_image_size(32) == (32, 32)
    assert checks.as_image_size((5, np.int64(7))) == (5, 7)
    assert checks.as_image_size([5, 7]) == (5, 7)


@pytest.mark.parametrize("value", [(1, 2, 3), (4,), []])
def test_image_sizes_are_one_side_or_two(value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^image_size=.*; it must be a side or \(height, width\)$"
    ):
        checks.as_image_size(value)


@pytest.mark.parametrize("value", [0, (0, 3), (3, -1)])
def test_image_sizes_are_at_least_1(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^image_size.*it must be an integer of at least 1$"):
        checks.as_image_size(value)


@pytest.mark.parametrize("value", ["32", None, 3.0, (3.0, 3)])
def test_image_sizes_of_wrong_type(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^image_size.* is a \w+; it must be an integer"):
        checks.as_image_size(value)


@pytest.mark.parametrize("value", [1.5, -1, float("nan")])
def test_a_rule_of_the_callers_replaces_the_range(value: float) -> None:
    with pytest.raises(ValueError, match=f"^share={float(value)}; it must be a part of one$"):
        checks.as_number("share", value, at_least=0, at_most=1, rule="it must be a part of one")
    with pytest.raises(TypeError, match="^share='1' is a str; it must be a part of one$"):
        checks.as_number("share", "1", at_least=0, at_most=1, rule="it must be a part of one")
