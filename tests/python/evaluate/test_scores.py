# SPDX-License-Identifier: Apache-2.0
"""DD-Ranking's scores: numbers worked out by hand, monotonicity, percentages refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from ddkern.evaluate.scores import (
    AugmentationRobustScore,
    LabelRobustScore,
    augmentation_robust_score,
    label_robust_score,
)

LABELS = {"real_hard": 0.85, "synthetic_hard": 0.55, "synthetic": 0.65, "random": 0.45}
AUGMENTATION = {
    "synthetic_augmented": 0.7,
    "random_augmented": 0.5,
    "synthetic_plain": 0.6,
    "random_plain": 0.3,
}
# 1/e and e - 1/e to twelve digits, from a table.
INVERSE_E, RANGE = 0.367879441171, 2.350402387288


def test_label_robust_score_by_hand() -> None:
    score = label_robust_score(**LABELS)
    assert isinstance(score, LabelRobustScore)
    # Recovery 0.85 - 0.55, improvement 0.65 - 0.45, half of the difference.
    assert score.hlr == pytest.approx(0.3, abs=1e-15)
    assert score.ior == pytest.approx(0.2, abs=1e-15)
    assert score.alpha == pytest.approx(-0.05, abs=1e-15)
    # e**-0.05 is 0.951229424501, e**-5 is 0.006737946999.
    assert score.value == pytest.approx((0.951229424501 - INVERSE_E) / RANGE, abs=1e-11)
    assert score.reference_value == pytest.approx((0.006737946999 - INVERSE_E) / RANGE, abs=1e-11)


def test_weight_of_the_label_robust_score() -> None:
    # 0.8 * 0.2 - 0.2 * 0.3 = 0.1, whose exponential is 1.105170918076.
    score = label_robust_score(**LABELS, weight=0.8)
    assert score.alpha == pytest.approx(0.1, abs=1e-15)
    assert score.value == pytest.approx((1.105170918076 - INVERSE_E) / RANGE, abs=1e-11)
    assert label_robust_score(**LABELS, weight=0).alpha == -score.hlr
    assert label_robust_score(**LABELS, weight=1).alpha == score.ior


def test_augmentation_robust_score_by_hand() -> None:
    score = augmentation_robust_score(**AUGMENTATION)
    assert isinstance(score, AugmentationRobustScore)
    assert score.ior_augmented == pytest.approx(0.2, abs=1e-15)
    assert score.ior_plain == pytest.approx(0.3, abs=1e-15)
    assert score.beta == pytest.approx(0.25, abs=1e-15)
    # e**0.25 is 1.284025416688, e**25 is 72004899337.386.
    assert score.value == pytest.approx((1.284025416688 - INVERSE_E) / RANGE, abs=1e-11)
    assert score.reference_value == pytest.approx(72004899337.386 / RANGE, rel=1e-11)


def test_weight_of_the_augmentation_robust_score() -> None:
    # 0.2 * 0.2 + 0.8 * 0.3 = 0.28
    assert augmentation_robust_score(**AUGMENTATION, weight=0.2).beta == pytest.approx(0.28)
    assert augmentation_robust_score(**AUGMENTATION, weight=1).beta == pytest.approx(0.2)


def test_ends_of_the_range() -> None:
    worst = label_robust_score(real_hard=1, synthetic_hard=0, synthetic=0, random=1)
    best = label_robust_score(real_hard=0, synthetic_hard=1, synthetic=1, random=0)
    even = label_robust_score(real_hard=0.5, synthetic_hard=0.5, synthetic=0.7, random=0.7)
    assert (worst.alpha, worst.value) == (-1, 0)
    assert (best.alpha, best.value) == (1, 1)
    # No difference: (1 - 1/e) / (e - 1/e) = 1 / (1 + e), under either convention.
    assert even.value == even.reference_value == pytest.approx(0.268941421370, abs=1e-11)
    lowest = augmentation_robust_score(
        synthetic_augmented=0, random_augmented=1, synthetic_plain=0, random_plain=1
    )
    assert (lowest.beta, lowest.value) == (-1, 0)


def test_reference_convention_hardly_tells_sets_apart() -> None:
    worse = label_robust_score(real_hard=0.9, synthetic_hard=0.5, synthetic=0.6, random=0.4)
    worst = label_robust_score(real_hard=0.9, synthetic_hard=0.1, synthetic=0.1, random=0.1)
    assert worse.alpha == pytest.approx(-0.1)
    # -1 / (e**2 - 1) is what is left of the formula at minus infinity.
    for score in (worse, worst):
        assert score.reference_value == pytest.approx(-0.156517642750, abs=2e-5)
    assert worse.value - worst.value > 0.09


@pytest.mark.parametrize(
    ("score", "accuracies", "name", "rises"),
    [
        (label_robust_score, LABELS, "real_hard", False),
        (label_robust_score, LABELS, "synthetic_hard", True),
        (label_robust_score, LABELS, "synthetic", True),
        (label_robust_score, LABELS, "random", False),
        (augmentation_robust_score, AUGMENTATION, "synthetic_augmented", True),
        (augmentation_robust_score, AUGMENTATION, "random_augmented", False),
        (augmentation_robust_score, AUGMENTATION, "synthetic_plain", True),
        (augmentation_robust_score, AUGMENTATION, "random_plain", False),
    ],
)
def test_monotone_in_every_accuracy(
    score: Any, accuracies: dict[str, float], name: str, rises: bool
) -> None:
    results = [score(**{**accuracies, name: step / 20}) for step in range(21)]
    for part in ("value", "reference_value"):
        steps = np.diff([getattr(result, part) for result in results])
        assert (steps > 0).all() if rises else (steps < 0).all()
    assert all(0 <= result.value <= 1 for result in results)


@pytest.mark.parametrize(
    ("score", "accuracies"),
    [(label_robust_score, LABELS), (augmentation_robust_score, AUGMENTATION)],
)
@pytest.mark.parametrize("wrong", [45.2, 1.0001, -0.1, float("nan"), float("inf")])
def test_percentages_are_refused(score: Any, accuracies: dict[str, float], wrong: float) -> None:
    for name in accuracies:
        rule = "it must be an accuracy as a fraction in \\[0, 1\\], not a percentage$"
        with pytest.raises(ValueError, match=f"^{name}={wrong}; {rule}"):
            score(**{**accuracies, name: wrong})


@pytest.mark.parametrize("wrong", ["0.5", True, None, [0.5, 0.6]])
def test_what_is_no_number_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^random=.* is a \w+; .* not a percentage$"):
        label_robust_score(**{**LABELS, "random": wrong})


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_weights_are_fractions(weight: float) -> None:
    for score, accuracies in (
        (label_robust_score, LABELS),
        (augmentation_robust_score, AUGMENTATION),
    ):
        with pytest.raises(ValueError, match=f"^weight={weight}; .* at most 1$"):
            score(**accuracies, weight=weight)


def test_numbers_of_numpy_become_those_of_python() -> None:
    score = label_robust_score(**{name: np.float64(a) for name, a in LABELS.items()})
    assert score == label_robust_score(**LABELS)
    assert {type(number) for number in dataclasses.astuple(score)} == {float}


def test_records_are_frozen() -> None:
    for record in (label_robust_score(**LABELS), augmentation_robust_score(**AUGMENTATION)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.value = 1.0  # type: ignore[misc]
