# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

for _package in ("PIL", "torch"):
    pytest.importorskip(_package)

from ddkern.report.run_folder import LabelledEvaluation  # noqa: E402
from ddkern.report.standings import Standing, rank_evaluations  # noqa: E402
from helpers.runs import make_evaluation  # noqa: E402


def line(label: str, *accuracies: float, **conditions: object) -> LabelledEvaluation:
    evaluation = make_evaluation(accuracies, **conditions)
    return LabelledEvaluation(label=label, evaluation=evaluation, of_this_set=False)


def labels(groups: tuple[tuple[Standing, ...], ...]) -> list[list[str]]:
    return [[standing.line.label for standing in group] for group in groups]


def test_differences_to_the_best_of_the_others() -> None:
    high, middle, low = (0.80, 0.84), (0.70, 0.72, 0.74), (0.5, 0.6)
    (group,) = rank_evaluations([line("m", *middle), line("l", *low), line("h", *high)])
    assert [standing.line.label for standing in group] == ["h", "m", "l"]
    differences = [standing.difference for standing in group]
    assert differences == pytest.approx([0.10, -0.10, -0.27])

    def error(values: tuple[float, ...]) -> float:
        return float(np.std(values, ddof=1)) / len(values) ** 0.5

    assert group[0].two_errors == pytest.approx(2 * np.hypot(error(high), error(middle)))
    assert group[1].two_errors == group[0].two_errors
    assert group[2].two_errors == pytest.approx(2 * np.hypot(error(low), error(high)))
    assert [standing.is_beyond for standing in group] == [True, True, True]
    assert group[1].standard_error == pytest.approx(error(middle))


@pytest.mark.parametrize(("gap", "beyond"), [(0.039, False), (0.041, True)])
def test_two_standard_errors_decide(gap: float, beyond: bool) -> None:
    # The error of both means is 0.01 * sqrt(2), that of the difference twice 0.01.
    first = (0.5 - 0.01 * 2**0.5, 0.5 + 0.01 * 2**0.5)
    (group,) = rank_evaluations([line("a", *first), line("b", *(a - gap for a in first))])
    assert group[0].two_errors == pytest.approx(0.04)
    assert [standing.is_beyond for standing in group] == [beyond, beyond]


def test_nothing_is_beyond_unknown_errors() -> None:
    (group,) = rank_evaluations([line("a", 0.9), line("b", 0.5, 0.6), line("c", 0.4, 0.4)])
    assert [standing.two_errors for standing in group] == [None, None, None]
    assert [standing.is_beyond for standing in group] == [None, None, None]
    assert group[0].standard_error is None
    assert group[2].standard_error == 0


def test_equal_means_keep_their_order_and_are_not_told_apart() -> None:
    (group,) = rank_evaluations([line("a", 0.5, 0.5), line("b", 0.5, 0.5)])
    assert [standing.line.label for standing in group] == ["a", "b"]
    assert [standing.is_beyond for standing in group] == [False, False]


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "E1-dc@1"},
        {"protocol_digest": "else"},
        {"model": "resnet-18"},
        {"model_options": {"width": 128}},
        {"test": "cifar10"},
        {"test_split": "validation"},
        {"test_hash": "else"},
    ],
)
def test_other_conditions_are_not_compared(other: dict[str, object]) -> None:
    groups = rank_evaluations([line("a", 0.5, 0.6), line("b", 0.9, **other), line("c", 0.7)])
    assert labels(groups) == [["c", "a"], ["b"]]
    assert (groups[1][0].difference, groups[1][0].is_beyond) == (None, None)


def test_sets_weights_and_seeds_may_differ() -> None:
    others = ({"set_hash": "else"}, {"weights": "uniform"}, {"seeds": [9]}, {"images": 3})
    lines = [line(str(i), 0.5, **other) for i, other in enumerate(others)]
    assert labels(rank_evaluations(lines)) == [["0", "1", "2", "3"]]


def test_no_lines_no_groups() -> None:
    assert rank_evaluations([]) == ()
