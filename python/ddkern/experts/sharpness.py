# SPDX-License-Identifier: Apache-2.0
"""Gradients that lead to flat minima: sharpness-aware steps of experts (FTD)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddkern.checks import as_number
from ddkern.updates import sam_ascent

__all__ = ["GSAM"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GSAM:
    """The direction of a step by surrogate-gap guided sharpness-aware minimisation [1]_.

    With ``g`` the gradient at ``p``: parameters go up by ``rho |p| . (|p| . g) / ||  |p| . g ||``
    (adaptive, element by element), and ``h`` is the gradient there. Of ``g``, the part that is
    orthogonal to ``h`` is taken off ``alpha`` times: ``h - alpha (g - cos ||g|| h / ||h||)``, with
    ``cos`` that of the angle between ``g`` and ``h``. FTD [2]_ trains its experts so, with
    ``rho`` 0.01 and ``alpha`` 0.3 (CIFAR-10, 1 and 10 images a class) or 1.

    Attributes
    ----------
    rho, alpha : float
        At least 0.

    References
    ----------
    .. [1] J. Zhuang et al., "Surrogate gap minimization improves sharpness-aware training", ICLR
       2022.
    .. [2] J. Du et al., "Minimizing the accumulated trajectory error to improve dataset
       distillation", CVPR 2023, and its code.
    """

    rho: float = 0.01
    alpha: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rho", "alpha"):
            object.__setattr__(self, name, as_number(name, getattr(self, name), at_least=0))

    def direction(self, parameters: Tensor, gradient_at: Callable[[Tensor], Tensor]) -> Tensor:
        """What a step goes down along.

        Parameters
        ----------
        parameters : Tensor, shape (..., n_parameters)
            Of one network, or of several at once.
        gradient_at : callable
            From such parameters to gradients of the same shape.
        """
        here = gradient_at(parameters)
        there = gradient_at(
            parameters + sam_ascent(here, rho=self.rho, parameters=parameters.detach())
        )
        tiny = 1e-12
        cosine = (here * there).sum(-1, keepdim=True) / (_norm(here) * _norm(there) + tiny)
        parallel = cosine * _norm(here) * there / (_norm(there) + tiny)
        return there - self.alpha * (here - parallel)


def _norm(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return norms
