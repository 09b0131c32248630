# SPDX-License-Identifier: Apache-2.0
"""Networks trained on real data: teachers that label, features to select by, and trajectories.

Importing this package needs torch: ``pip install ddkern[torch]``.
"""

from __future__ import annotations

from ddkern.experts.buffer import ExpertBuffer
from ddkern.experts.replay import import_replay_buffers
from ddkern.experts.sharpness import GSAM
from ddkern.experts.teacher import Teacher, load_teacher, teacher_recipe, train_teacher
from ddkern.experts.trajectories import expert_recipe, train_experts

__all__ = [
    "GSAM",
    "ExpertBuffer",
    "Teacher",
    "expert_recipe",
    "import_replay_buffers",
    "load_teacher",
    "teacher_recipe",
    "train_experts",
    "train_teacher",
]
