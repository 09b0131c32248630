# SPDX-License-Identifier: Apache-2.0
"""Evaluation of distilled sets: under frozen, versioned protocols, and without any training.

Importing this package needs numpy alone. Names are resolved when they are first used, and what
trains networks needs torch then: ``pip install ddkern[torch]``.

Public names
------------
evaluate, evaluate_across
    Train students on a set and test them, on one architecture or several.
plan_evaluation, run_plan
    The same in two steps: decide everything, then do it.
Evaluation, NetworkResult
    What was found.
Protocol, get_protocol, protocol_names
    How students are trained and tested.
loss_weight
    From cell masses to weights of losses.
label_robust_score, augmentation_robust_score
    The scores of DD-Ranking.
measure_quantization
    How well weighted atoms stand for points: distortion, Wasserstein distances, cell masses.
QuantizationMeasures, MeasuresSummary
    What it found.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddkern.evaluate.evaluation import evaluate, evaluate_across, run_plan
    from ddkern.evaluate.measures import (
        MeasuresSummary,
        QuantizationMeasures,
        measure_quantization,
    )
    from ddkern.evaluate.plan import EvaluationPlan, plan_evaluation
    from ddkern.evaluate.protocols import Protocol, get_protocol, protocol_names
    from ddkern.evaluate.result import Evaluation, NetworkResult
    from ddkern.evaluate.scores import (
        AugmentationRobustScore,
        LabelRobustScore,
        augmentation_robust_score,
        label_robust_score,
    )
    from ddkern.evaluate.weighting import Weighting, loss_weight

__all__ = [
    "AugmentationRobustScore",
    "Evaluation",
    "EvaluationPlan",
    "LabelRobustScore",
    "MeasuresSummary",
    "NetworkResult",
    "Protocol",
    "QuantizationMeasures",
    "Weighting",
    "augmentation_robust_score",
    "evaluate",
    "evaluate_across",
    "get_protocol",
    "label_robust_score",
    "loss_weight",
    "measure_quantization",
    "plan_evaluation",
    "protocol_names",
    "run_plan",
]

_NAMES_IN = {
    "evaluation": ("evaluate", "evaluate_across", "run_plan"),
    "measures": ("MeasuresSummary", "QuantizationMeasures", "measure_quantization"),
    "plan": ("EvaluationPlan", "plan_evaluation"),
    "protocols": ("Protocol", "get_protocol", "protocol_names"),
    "result": ("Evaluation", "NetworkResult"),
    "scores": (
        "AugmentationRobustScore",
        "LabelRobustScore",
        "augmentation_robust_score",
        "label_robust_score",
    ),
    "weighting": ("Weighting", "loss_weight"),
}
_HOME_OF = {name: module for module, names in _NAMES_IN.items() for name in names}
_ON_TORCH = frozenset({"evaluation", "plan", "protocols"})


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'ddkern.evaluate' has no attribute {name!r}")
    if home in _ON_TORCH:
        from ddkern.optional import import_optional

        import_optional("torch", name, "torch")
    value = getattr(importlib.import_module(f"ddkern.evaluate.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
