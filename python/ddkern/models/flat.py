# SPDX-License-Identifier: Apache-2.0
"""A network as a function of one vector of parameters. Importing this module needs torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import vmap

from ddkern.models.convnet import Blocks

__all__ = ["FlatNetwork"]


class FlatNetwork:
    """A network whose parameters are an argument, all in one vector.

    The module gives structure and buffers; its own parameters are not used, and nothing of it is
    changed. Norms that keep running statistics work with those of the batch and update none.

    Parameters
    ----------
    model : nn.Module
        Returns logits of shape (n, n_classes).

    Attributes
    ----------
    n_parameters : int
    kept : dict
        What others keep as long as the network, compiled functions of it for example.

    Raises
    ------
    TypeError
        If ``model`` is not a module.
    ValueError
        If it has no parameters, they are of several dtypes, or it drops out at random, so that a
        second call would not be the first one again.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
        parameters = dict(model.named_parameters())
        if not parameters:
            raise ValueError("model has no parameters; there is nothing to train")
        dtypes = {parameter.dtype for parameter in parameters.values()}
        if len(dtypes) > 1:
            raise ValueError(f"model has parameters of {len(dtypes)} dtypes; they must share one")
        for name, module in model.named_modules():
            # The dropouts of torch share a private base; what they have in common is p.
            if "Dropout" in type(module).__name__ and getattr(module, "p", 0) > 0:
                raise ValueError(
                    f"model has {name!r}, which drops out with p={module.p}; it must be 0, since "
                    "steps are replayed"
                )
        self._model = model
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self._sizes = [parameter.numel() for parameter in parameters.values()]
        self.n_parameters = sum(self._sizes)
        self.kept: dict[Any, Any] = {}

    def parameters_of(self, model: nn.Module) -> Tensor:
        """The parameters of a module of this structure as a new vector.

        Raises
        ------
        ValueError
            If their names or shapes are others.
        """
        found = {name: parameter.shape for name, parameter in model.named_parameters()}
        if found != self._shapes:
            raise ValueError("model has parameters of other names or shapes than this network")
        return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])

    def __call__(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Logits of ``inputs`` with these parameters, in training mode.

        Parameters
        ----------
        parameters : Tensor, shape (n_parameters,) or (n_networks, n_parameters)
            Several networks are one batched computation (``vmap``), for which fused layers
            (:func:`ddkern.models.accelerate`) become plain ones.
        inputs : Tensor, shape (n, ...)
            The same for all networks.

        Returns
        -------
        Tensor, shape (n, n_classes) or (n_networks, n, n_classes)
        """
        if parameters.dim() == 2 and len(parameters) == 1:
            return self(parameters.view(-1), inputs)[None]
        is_batch = parameters.dim() == 2
        # Copies take the updates of running statistics.
        shape = parameters.shape[:-1]
        buffers = {
            name: buffer.expand((*shape, *buffer.shape)).clone()
            for name, buffer in self._model.named_buffers()
        }
        with self.in_training(plain=is_batch):
            if not is_batch:
                return self._logits(parameters, buffers, inputs)
            return vmap(self._logits, (0, 0, None))(parameters, buffers, inputs)

    @contextlib.contextmanager
    def in_training(self, *, plain: bool) -> Iterator[None]:
        """Have the module in training mode, ``plain`` without fused layers, and restore it."""
        fused = [
            module
            for module in self._model.modules()
            if plain and isinstance(module, Blocks) and module.fused
        ]
        was_training = self._model.training
        self._model.train()
        for module in fused:
            module.fused = False
        try:
            yield
        finally:
            self._model.train(was_training)
            for module in fused:
                module.fused = True

    def pure_logits(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """What a call gives for one network, for ``torch.func`` and ``torch.compile``.

        Only while :meth:`in_training` lasts.
        """
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        return self._logits(parameters, buffers, inputs)

    def _logits(self, parameters: Tensor, buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
        # One split, whose derivative is one concatenation; a view each would be a sum of vectors.
        parts = parameters.split_with_sizes(self._sizes)
        named = {
            name: part.view(shape)
            for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)
        }
        logits = torch.func.functional_call(self._model, (named, buffers), (inputs,))
        return cast(Tensor, logits)
