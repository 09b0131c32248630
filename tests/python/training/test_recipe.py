# SPDX-License-Identifier: Apache-2.0
"""Recipes are checked, and decay as their formulas say."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from ddkern.training import Decay, Optimizer, Recipe  # noqa: E402

SGD = Optimizer(name="sgd", lr=0.1)


@pytest.mark.parametrize(
    ("kind", "first", "middle", "last"),
    [
        ("constant", 1.0, 1.0, 1.0),
        ("cosine", 1.0, 0.5, (1 + math.cos(math.pi * 99 / 100)) / 2),
        ("half_cosine", 1.0, (1 + math.cos(math.pi / 4)) / 2, (1 + math.cos(math.pi * 0.495)) / 2),
        ("cosine_to_hundredth", 1.0, 0.505, 0.01 + 0.99 * (1 + math.cos(math.pi * 0.99)) / 2),
    ],
)
def test_decay_follows_its_formula(kind: str, first: float, middle: float, last: float) -> None:
    decay = Decay(kind=kind)
    assert [decay.at_epoch(e, 100) for e in (0, 50, 99)] == pytest.approx([first, middle, last])


def test_step_falls_once_and_restarts_there() -> None:
    decay = Decay(kind="step", at=3, factor=0.1, restart=True)
    assert [decay.at_epoch(e, 6) for e in range(6)] == [1, 1, 1, 0.1, 0.1, 0.1]
    assert [decay.restarts_at(e) for e in range(6)] == [False, False, False, True, False, False]
    assert not Decay(kind="step", at=3, factor=0.1).restarts_at(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Optimizer(name="adam", lr=1), "name='adam'"),
        (lambda: Optimizer(name="sgd", lr=0), "lr=0"),
        (lambda: Optimizer(name="sgd", lr=float("nan")), "lr=nan"),
        (lambda: Optimizer(name="sgd", lr=1, momentum=2), "momentum=2"),
        (lambda: Decay(kind="linear"), "kind='linear'"),
        (
            lambda: Recipe(epochs=0, batch_size=1, optimizer=SGD, decay=Decay(kind="constant")),
            "epochs=0",
        ),
        (
            lambda: Recipe(
                epochs=1, batch_size=1, optimizer=SGD, decay=Decay(kind="constant"), temperature=0
            ),
            "temperature=0",
        ),
    ],
)
def test_bad_values_are_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
