# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddkern.distill import (
    Forgetting,
    Herding,
    KCenter,
    KMeansNearest,
    Method,
    PcaFeatures,
    Random,
    make_method,
    method_names,
)


def test_names() -> None:
    names = (
        *("d4m", "dc", "ddoq", "dm", "forgetting", "herding", "k-center", "k-means", "mtt"),
        *("random", "whole"),
    )
    assert method_names() == names


@pytest.mark.parametrize(
    "made",
    [
        Random(ipc=3),
        Herding(ipc=3, features=PcaFeatures(n_components=2)),
        KCenter(ipc=3),
        KMeansNearest(ipc=3, n_init=2, max_iter=9),
    ],
)
def test_a_method_by_name_is_the_method(made: Any) -> None:
    assert isinstance(made, Method)
    options = {name: getattr(made, name) for name in made.__dataclass_fields__ if name != "name"}
    assert make_method(made.name, **options) == made


def test_forgetting_by_name() -> None:
    made = make_method("forgetting", ipc=1, scores=[3, 1])
    assert isinstance(made, Forgetting)
    assert made.scores.tolist() == [3, 1]


def test_methods_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Random(ipc=1).ipc = 2


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("randm", {}, ValueError, "name='randm'; it must be one of 'd4m', 'dc', 'ddoq', 'dm'"),
        (3, {}, TypeError, "name is a int"),
        ("random", {"ipc": 1, "n": 2}, TypeError, "n is no option of random; it takes ipc$"),
        ("random", {"ipc": 1, "name": 2}, TypeError, "name"),
        ("random", {}, TypeError, "random needs the option ipc"),
        ("forgetting", {"ipc": 1}, TypeError, "forgetting needs the option scores"),
        ("herding", {"ipc": "1"}, TypeError, "ipc='1' is a str"),
        ("forgetting", {"ipc": 1, "scores": np.array(["a"])}, TypeError, "scores"),
    ],
)
def test_bad_options(
    name: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_method(name, **options)
