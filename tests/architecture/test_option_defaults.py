# SPDX-License-Identifier: Apache-2.0
"""The defaults that Python documents are the defaults of the C++ option record."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import ddkern
from ddkern import _core

SHARED = {"algorithm", "init", "max_iter", "n_init", "tol"}


def python_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Default of every parameter of ``function`` that has one."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def differences(core: Mapping[str, Any], python: Mapping[str, Any]) -> list[str]:
    """What the two sides disagree on, type included, as one line of text each."""
    found = [f"the C++ option '{name}' is unknown here" for name in sorted(set(core) - SHARED)]
    for name in sorted(SHARED):
        if name not in core or name not in python:
            found.append(f"'{name}' is missing on one side")
        elif type(core[name]) is not type(python[name]) or core[name] != python[name]:
            found.append(f"'{name}': C++ {core[name]!r}, Python {python[name]!r}")
    return found


def test_defaults_of_quantize() -> None:
    assert differences(_core.option_defaults(), python_defaults(ddkern.quantize)) == []


def test_defaults_of_seeding() -> None:
    core, python = _core.option_defaults(), python_defaults(ddkern.seed_centroids)
    for name in SHARED & set(python):
        assert python[name] == core[name]


def quantize_like(
    *,
    algorithm: str = "auto",
    init: str = "k-means++",
    max_iter: int = 300,
    n_init: int = 1,
    tol: float = 1e-4,
) -> None:
    """Signature that the seeded differences below are compared with."""


GOOD = {"algorithm": "auto", "init": "k-means++", "max_iter": 300, "n_init": 1, "tol": 1e-4}


def test_equal_defaults_pass() -> None:
    assert differences(GOOD, python_defaults(quantize_like)) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"max_iter": 299}, "'max_iter': C++ 299, Python 300"),
        ({"tol": 1e-3}, "'tol': C++ 0.001, Python 0.0001"),
        ({"n_init": True}, "'n_init': C++ True, Python 1"),
        ({"algorithm": "gram"}, "'algorithm': C++ 'gram', Python 'auto'"),
        ({"batch": 7}, "the C++ option 'batch' is unknown here"),
    ],
)
def test_different_default_is_caught(change: dict[str, Any], fault: str) -> None:
    assert differences({**GOOD, **change}, python_defaults(quantize_like)) == [fault]


def test_missing_option_is_caught() -> None:
    core = {name: value for name, value in GOOD.items() if name != "init"}
    assert differences(core, python_defaults(quantize_like)) == ["'init' is missing on one side"]
