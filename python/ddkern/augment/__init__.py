# SPDX-License-Identifier: Apache-2.0
"""Augmentation of image batches: DSA, crops, patches, cutmix and mixup, replayable by key.

Nothing here holds a random state. Every draw is a pure function of a :class:`DrawKey`, so a
training run can be replayed from any step, on any device, and the real and the synthetic batch of
a Siamese comparison get the same operation by getting the same key.

Importing this package needs torch: ``pip install ddkern[torch]``.
"""

from __future__ import annotations

from ddkern.augment.crop import CropDraw, RandomResizedCrop
from ddkern.augment.draws import DrawKey
from ddkern.augment.dsa import DSA, DSADraw
from ddkern.augment.mix import CutMix, MixDraw, MixedBatch, MixUp
from ddkern.augment.patches import PatchDraw, ShufflePatches

__all__ = [
    "DSA",
    "CropDraw",
    "CutMix",
    "DSADraw",
    "DrawKey",
    "MixDraw",
    "MixUp",
    "MixedBatch",
    "PatchDraw",
    "RandomResizedCrop",
    "ShufflePatches",
]
