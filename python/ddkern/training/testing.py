# SPDX-License-Identifier: Apache-2.0
"""How often a network is right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddkern.training.images import PixelImages
from ddkern.training.precision import Precision, autocast

__all__ = ["measure_accuracy"]

_BATCH = 256


def measure_accuracy(
    model: nn.Module,
    images: PixelImages,
    labels: Tensor,
    precision: Precision = "float32",
    *,
    batch_size: int = _BATCH,
) -> float:
    """Share of images whose largest logit is that of their label, in [0, 1].

    Parameters
    ----------
    model : nn.Module
        Is in evaluation mode meanwhile and in its former one afterwards.
    images : PixelImages
    labels : Tensor of int64, shape (n,)
        On the device of ``images``.
    precision : {"float32", "bfloat16"}
    batch_size : int
        What is worked on at a time; no matter for the result but for rounding.
    """
    was_training = model.training
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=labels.device)
    with torch.inference_mode(), autocast(precision, labels.device):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            right += (logits_of(model, images.inputs(rows)).argmax(dim=1) == labels[rows]).sum()
    model.train(was_training)
    return int(right) / len(images)


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits in float32 of inputs that are laid out as convolutions work fastest."""
    logits: Tensor = model(inputs.contiguous(memory_format=torch.channels_last))
    return logits.float()
