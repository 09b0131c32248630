# SPDX-License-Identifier: Apache-2.0
"""Soft labels of a teacher. Importing this module needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ddkern.data import Normalization
from ddkern.training.testing import logits_of

__all__ = ["check_teacher", "teacher_logits"]

_BATCH = 256


def check_teacher(teacher: Any) -> None:
    """Raise TypeError unless this is a network."""
    if not isinstance(teacher, nn.Module):
        raise TypeError(f"teacher is a {type(teacher).__name__}; it must be an nn.Module or None")


@torch.inference_mode()
def teacher_logits(
    teacher: nn.Module, images: NDArray[np.uint8], normalization: Normalization
) -> NDArray[np.float32]:
    """Logits of a network in evaluation mode; afterwards every module has the mode that it had.

    Parameters
    ----------
    teacher : nn.Module
        For images of this normalization.
    images : ndarray of uint8, shape (n, channels, height, width)
    normalization : Normalization

    Returns
    -------
    ndarray of float32, shape (n, n_classes)
    """
    modes = [(module, module.training) for module in teacher.modules()]
    first = next(teacher.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    parts = []
    try:
        teacher.eval()
        for start in range(0, len(images), _BATCH):
            inputs = torch.from_numpy(normalization.apply(images[start : start + _BATCH]))
            parts.append(logits_of(teacher, inputs.to(device)).float().cpu())
    finally:
        for module, training in modes:
            module.training = training
    values: NDArray[np.float32] = torch.cat(parts).numpy()
    return values
