# SPDX-License-Identifier: Apache-2.0
"""Strength, steps and guidance: rules, changes, and the file that holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddkern.latents import DECODING_FILE, Decoding

DEFAULT = Decoding(strength=0.7, steps=50, guidance=4)


def test_values_are_plain() -> None:
    made = Decoding(strength=np.float32(0.5), steps=np.int64(7), guidance=np.int64(2))
    assert made == Decoding(strength=0.5, steps=7, guidance=2.0)
    assert [type(value) for value in (made.strength, made.steps, made.guidance)] == [
        float,
        int,
        float,
    ]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"strength": 1.5},
            ValueError,
            "strength=1.5; it must be a finite number of at least 0 and",
        ),
        ({"strength": "1"}, TypeError, "strength='1' is a str"),
        ({"steps": 0}, ValueError, "steps=0; it must be an integer of at least 1"),
        ({"steps": 2.0}, TypeError, "steps=2.0 is a float"),
        ({"guidance": 0.5}, ValueError, "guidance=0.5; it must be a finite number of at least 1"),
        ({"guidance": float("inf")}, ValueError, "guidance=inf"),
    ],
)
def test_rules(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DEFAULT.changed(**change)


def test_none_keeps_a_value_and_zero_does_not() -> None:
    assert DEFAULT.changed() == DEFAULT
    assert DEFAULT.changed(strength=0) == Decoding(strength=0, steps=50, guidance=4)
    assert DEFAULT.changed(None, 3, 1) == Decoding(strength=0.7, steps=3, guidance=1)


def test_file_changes_what_it_names() -> None:
    assert DECODING_FILE == "ddkern_decoding.json"
    assert DEFAULT.changed_by_file({}, "f") == DEFAULT
    changed = DEFAULT.changed_by_file({"steps": 3, "guidance": 1.5}, "f")
    assert changed == Decoding(strength=0.7, steps=3, guidance=1.5)


@pytest.mark.parametrize("content", [[1], 3, "x", {"step": 3}, {"steps": 3, "more": 1}])
def test_file_of_something_else(content: Any) -> None:
    with pytest.raises(ValueError, match="the file holds .*; it must be a record of strength, ste"):
        DEFAULT.changed_by_file(content, "the file")


@pytest.mark.parametrize("content", [{"steps": 0}, {"steps": "many"}])
def test_file_with_a_bad_value(content: Any) -> None:
    with pytest.raises(ValueError, match="the file: steps="):
        DEFAULT.changed_by_file(content, "the file")
