# SPDX-License-Identifier: Apache-2.0
"""Networks trained on real data: teachers that label, and features to select by.

Importing this package needs torch: ``pip install ddkern[torch]``.
"""

from __future__ import annotations

from ddkern.experts.teacher import Teacher, load_teacher, teacher_recipe, train_teacher

__all__ = ["Teacher", "load_teacher", "teacher_recipe", "train_teacher"]
