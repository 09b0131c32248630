# SPDX-License-Identifier: Apache-2.0
"""How the lines of a table of accuracies stand to each other, and what that is worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ddkern.report.run_folder import LabelledEvaluation

__all__ = ["Standing", "rank_evaluations"]

# Evaluations are compared where all of these agree: students of another network, or tested on other
# images, say nothing about the set. How many images a set has may differ.
_SAME = ("protocol", "protocol_digest", "model", "model_options", "test", "test_split", "test_hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A line and its distance to the best of the others under the same conditions.

    Attributes
    ----------
    line : LabelledEvaluation
    difference : float or None
        Its mean accuracy minus the highest one of the other lines; None where there is no other.
    two_errors : float or None
        Twice the standard error of the difference, of independent networks; None where one network
        was trained on either side, from which no error can be told.
    """

    line: LabelledEvaluation
    difference: float | None
    two_errors: float | None

    @property
    def standard_error(self) -> float | None:
        """Of the mean of the line; None for a single network."""
        evaluation = self.line.evaluation
        return evaluation.standard_error if len(evaluation.networks) > 1 else None

    @property
    def is_beyond(self) -> bool | None:
        """Whether the difference is larger than two of its standard errors; None if unknown."""
        if self.difference is None or self.two_errors is None:
            return None
        return abs(self.difference) > self.two_errors


def rank_evaluations(lines: Sequence[LabelledEvaluation]) -> tuple[tuple[Standing, ...], ...]:
    """Group lines by the conditions that make them comparable; the best of a group comes first.

    Parameters
    ----------
    lines : sequence of LabelledEvaluation

    Returns
    -------
    tuple of groups, each a tuple of Standing
        Groups in the order of their first line; of equal means the earlier line comes first.
    """
    groups: dict[str, list[LabelledEvaluation]] = {}
    for line in lines:
        same = [line.evaluation.conditions.get(name) for name in _SAME]
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(line)
    return tuple(_rank(group) for group in groups.values())


def _rank(group: Sequence[LabelledEvaluation]) -> tuple[Standing, ...]:
    ranked = sorted(group, key=lambda line: -line.evaluation.mean)
    if len(ranked) == 1:
        return (Standing(line=ranked[0], difference=None, two_errors=None),)
    best, second = ranked[:2]
    return tuple(_compare(line, second if line is best else best) for line in ranked)


def _compare(line: LabelledEvaluation, other: LabelledEvaluation) -> Standing:
    mine, its = line.evaluation, other.evaluation
    two_errors = None
    if min(len(mine.networks), len(its.networks)) > 1:
        two_errors = 2 * (mine.standard_error**2 + its.standard_error**2) ** 0.5
    return Standing(line=line, difference=mine.mean - its.mean, two_errors=two_errors)
