# SPDX-License-Identifier: Apache-2.0
"""Training of one network: the loop that students, teachers and experts share.

Importing this package needs torch: ``pip install ddkern[torch]``.
"""

from __future__ import annotations

from ddkern.training.images import PixelImages, TrainingSet
from ddkern.training.loop import EpochReport, train
from ddkern.training.precision import Precision, choose_device, choose_precision
from ddkern.training.recipe import Augmentation, Decay, Optimizer, Recipe
from ddkern.training.testing import measure_accuracy

__all__ = [
    "Augmentation",
    "Decay",
    "EpochReport",
    "Optimizer",
    "PixelImages",
    "Precision",
    "Recipe",
    "TrainingSet",
    "choose_device",
    "choose_precision",
    "measure_accuracy",
    "train",
]
