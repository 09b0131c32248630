# SPDX-License-Identifier: Apache-2.0
"""Both halves of a step of one student through ``torch.compile``.

AOTAutograd does not differentiate twice; with both derivatives inside the compiled function, by
``torch.func.grad``, there is nothing left for it to differentiate.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import grad

from ddkern.models import FlatNetwork
from ddkern.training.precision import Precision, autocast

__all__ = ["CompiledSteps"]

# Of torch.compile.
_BACKEND = "inductor"


class CompiledSteps:
    """Derivatives of the loss of a batch, compiled once for every shape of it.

    Parameters
    ----------
    network : FlatNetwork
    loss : callable
        From logits and targets to the mean loss of a batch.
    precision : {"float32", "bfloat16"}
        Of convolutions and linear layers.
    """

    def __init__(
        self, network: FlatNetwork, loss: Callable[[Tensor, Tensor], Tensor], precision: Precision
    ) -> None:
        self._network, self._loss, self._precision = network, loss, precision

        def gradient(theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
            found: Tensor = grad(self._of_batch)(theta, inputs, targets)
            return found

        self._forward = _compile(gradient)
        self._back: dict[tuple[int, ...], Callable[..., Any]] = {}

    def gradient(self, theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Of the loss with respect to the parameters, shape (n_parameters,)."""
        with self._network.in_training(plain=True), torch.no_grad():
            found: Tensor = self._forward(theta.detach(), inputs.detach(), targets.detach())
        return found

    def back(
        self, theta: Tensor, inputs: Tensor, targets: Tensor, q: Tensor, sources: tuple[int, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """That gradient, and derivatives of its product with ``q`` by some of the first three."""
        if not sources:
            return self.gradient(theta, inputs, targets), ()
        if sources not in self._back:
            self._back[sources] = self._compile_back(sources)
        arguments = [x.detach() for x in (theta, inputs, targets, q)]
        with self._network.in_training(plain=True), torch.no_grad():
            derivatives, gradient = self._back[sources](*arguments)
        return gradient, derivatives

    def _compile_back(self, sources: tuple[int, ...]) -> Callable[..., Any]:
        def back(theta: Tensor, inputs: Tensor, targets: Tensor, q: Tensor) -> Any:
            derivatives = grad(self._product, argnums=sources, has_aux=True)
            return derivatives(theta, inputs, targets, q)

        return _compile(back)

    def _of_batch(self, theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        with autocast(self._precision, inputs.device):
            logits = self._network.pure_logits(theta, inputs)
        return self._loss(logits.to(theta.dtype), targets)

    def _product(
        self, theta: Tensor, inputs: Tensor, targets: Tensor, q: Tensor
    ) -> tuple[Tensor, Tensor]:
        gradient = grad(self._of_batch)(theta, inputs, targets)
        return (q * gradient).sum(), gradient


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    # torch gives a piece of code up after eight compilations, whoever made functions of it: here
    # every function has code of its own.
    given = cast(FunctionType, function)
    own = FunctionType(
        given.__code__.replace(),
        given.__globals__,
        given.__name__,
        given.__defaults__,
        given.__closure__,
    )
    # A batch of another size is a compilation of its own: those of convolutions of any size are
    # slower, and sizes are few.
    compiled: Callable[..., Any] = torch.compile(own, backend=_BACKEND, dynamic=False)
    return compiled
