# SPDX-License-Identifier: Apache-2.0
"""Weighted losses between logits and what they should be."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["cross_entropy", "softened_divergence"]


def cross_entropy(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Mean over the batch of ``weight`` times the cross entropy.

    Parameters
    ----------
    logits, targets : Tensor, shape (n, n_classes)
        Targets are probabilities.
    weight : Tensor, shape (n,)

    Notes
    -----
    The sum is divided by n, not by the sum of the weights of the batch: what an image counts must
    not depend on its company.
    """
    losses = -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1)
    return (weight * losses).mean()


def softened_divergence(
    logits: Tensor, teacher_logits: Tensor, weight: Tensor, temperature: float, *, squared: bool
) -> Tensor:
    """Mean of ``weight`` times KL(teacher || student) at a temperature.

    Parameters
    ----------
    logits, teacher_logits : Tensor, shape (n, n_classes)
    weight : Tensor, shape (n,)
    temperature : float
    squared : bool
        Whether the result is multiplied by the square of the temperature, which keeps the size of
        gradients (G. Hinton et al., "Distilling the knowledge in a neural network", 2015).
    """
    student = functional.log_softmax(logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    losses = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    loss = (weight * losses).mean()
    return loss * temperature**2 if squared else loss
