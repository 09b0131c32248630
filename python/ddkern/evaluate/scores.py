# SPDX-License-Identifier: Apache-2.0
"""Scores of DD-Ranking: what a distilled set is worth beyond its labels and its augmentation.

Pure functions of test accuracies, which are fractions in [0, 1]. Both scores send a weighted
difference of accuracies, -1 at worst and 1 at best, to [0, 1] by an exponential; 0.27 stands for no
difference.

Version 0.2.0 of the ``ddranking`` package puts accuracies in percent into the same exponential.
What that gives is not confined to [0, 1]: between -0.157 and -0.153 for every difference below -5
points, and of any magnitude above 0. It is kept beside the score, as ``reference_value``, for
comparison with what that package reported, and for nothing else.

References
----------
Z. Li et al., "DD-Ranking: Rethinking the evaluation of dataset distillation", 2025,
arXiv:2505.13300.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ddkern.checks import as_fraction, as_number

__all__ = [
    "AugmentationRobustScore",
    "LabelRobustScore",
    "augmentation_robust_score",
    "label_robust_score",
]


@dataclass(frozen=True, slots=True)
class LabelRobustScore:
    """The label-robust score (LRS) and what it is made of.

    Attributes
    ----------
    hlr : float
        Hard-label recovery: by how much real data beats the distilled images with hard labels. The
        smaller the better; negative where the distilled images are better.
    ior : float
        Improvement over random: by how much the distilled set beats randomly chosen real images
        under the same protocol.
    alpha : float
        weight * ior - (1 - weight) * hlr, in [-1, 1].
    value : float
        The score, in [0, 1]; higher is better.
    reference_value : float
        What ``ddranking`` 0.2.0 reports for the same accuracies, which it takes in percent.
    """

    hlr: float
    ior: float
    alpha: float
    value: float
    reference_value: float


@dataclass(frozen=True, slots=True)
class AugmentationRobustScore:
    """The augmentation-robust score (ARS) and what it is made of.

    Attributes
    ----------
    ior_augmented, ior_plain : float
        By how much the distilled set beats randomly chosen real images, both trained with
        augmentation, and both without.
    beta : float
        weight * ior_augmented + (1 - weight) * ior_plain, in [-1, 1].
    value : float
        The score, in [0, 1]; higher is better.
    reference_value : float
        What ``ddranking`` 0.2.0 reports for the same accuracies, which it takes in percent.
    """

    ior_augmented: float
    ior_plain: float
    beta: float
    value: float
    reference_value: float


def label_robust_score(
    *,
    real_hard: float,
    synthetic_hard: float,
    synthetic: float,
    random: float,
    weight: float = 0.5,
) -> LabelRobustScore:
    """Label-robust score of a distilled set.

    Where training is repeated, DD-Ranking averages the scores of the repetitions, not the
    accuracies; the two differ a little, since the exponential is convex.

    Parameters
    ----------
    real_hard : float
        Accuracy after training on all real data with hard labels.
    synthetic_hard : float
        Accuracy after training on the distilled images with hard labels.
    synthetic : float
        Accuracy after training on the distilled set as it is meant to be used, with its own labels.
    random : float
        Accuracy after training on as many random real images in that same way.
    weight : float
        Share of the improvement over random, in [0, 1]; the rest is that of hard-label recovery.

    Returns
    -------
    LabelRobustScore

    Raises
    ------
    TypeError
        If an argument is no number.
    ValueError
        If an argument is outside [0, 1], as a percentage would be.

    Examples
    --------
    >>> from ddkern.evaluate.scores import label_robust_score
    >>> score = label_robust_score(
    ...     real_hard=0.85, synthetic_hard=0.55, synthetic=0.65, random=0.45
    ... )
    >>> round(score.alpha, 2), round(score.value, 4)
    (-0.05, 0.2482)
    """
    hlr = _as_accuracy("real_hard", real_hard) - _as_accuracy("synthetic_hard", synthetic_hard)
    ior = _as_accuracy("synthetic", synthetic) - _as_accuracy("random", random)
    weight = as_fraction("weight", weight)
    alpha = weight * ior - (1 - weight) * hlr
    return LabelRobustScore(hlr, ior, alpha, _to_unit(alpha), _to_unit(100 * alpha))


def augmentation_robust_score(
    *,
    synthetic_augmented: float,
    random_augmented: float,
    synthetic_plain: float,
    random_plain: float,
    weight: float = 0.5,
) -> AugmentationRobustScore:
    """Augmentation-robust score of a distilled set.

    Parameters
    ----------
    synthetic_augmented, random_augmented : float
        Accuracies after training on the distilled set, and on as many random real images, with
        augmentation.
    synthetic_plain, random_plain : float
        The same without augmentation.
    weight : float
        Share of the pair with augmentation, in [0, 1].

    Returns
    -------
    AugmentationRobustScore

    Raises
    ------
    TypeError
        If an argument is no number.
    ValueError
        If an argument is outside [0, 1], as a percentage would be.
    """
    augmented = _as_accuracy("synthetic_augmented", synthetic_augmented) - _as_accuracy(
        "random_augmented", random_augmented
    )
    plain = _as_accuracy("synthetic_plain", synthetic_plain) - _as_accuracy(
        "random_plain", random_plain
    )
    weight = as_fraction("weight", weight)
    beta = weight * augmented + (1 - weight) * plain
    return AugmentationRobustScore(augmented, plain, beta, _to_unit(beta), _to_unit(100 * beta))


def _to_unit(difference: float) -> float:
    """(e**difference - 1/e) / (e - 1/e), times e above and below: exactly 0 at -1 and 1 at 1."""
    return math.expm1(difference + 1) / math.expm1(2)


def _as_accuracy(name: str, value: Any) -> float:
    rule = "it must be an accuracy as a fraction in [0, 1], not a percentage"
    return as_number(name, value, at_least=0, at_most=1, rule=rule)
