# SPDX-License-Identifier: Apache-2.0
"""Evaluation of distilled sets under frozen, versioned protocols.

Importing this package needs torch: ``pip install ddkern[torch]``.

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
"""

from __future__ import annotations

from ddkern.evaluate.evaluation import evaluate, evaluate_across, run_plan
from ddkern.evaluate.plan import EvaluationPlan, plan_evaluation
from ddkern.evaluate.protocols import Protocol, get_protocol, protocol_names
from ddkern.evaluate.result import Evaluation, NetworkResult
from ddkern.evaluate.weighting import Weighting, loss_weight

__all__ = [
    "Evaluation",
    "EvaluationPlan",
    "NetworkResult",
    "Protocol",
    "Weighting",
    "evaluate",
    "evaluate_across",
    "get_protocol",
    "loss_weight",
    "plan_evaluation",
    "protocol_names",
    "run_plan",
]
