# SPDX-License-Identifier: Apache-2.0
"""Features of a network before its last layer. Importing this module needs torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ddkern.checks import as_count
from ddkern.data import ImageDataset, Normalization
from ddkern.distill.features import Embed
from ddkern.models import digest_of_weights, embed

__all__ = ["NetworkFeatures"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkFeatures:
    """What a network computes before its last layer, in evaluation mode.

    While features are computed the network is in evaluation mode, and on ``device``; afterwards
    every module has the mode that it had, and the network is back where it was. Its weights and
    statistics stay as they are.

    Attributes
    ----------
    model : nn.Module
        With a method ``embed``, see :func:`ddkern.models.embed`. The options record its class and
        a digest of its weights.
    batch_size : int
        Images that pass through the network at once.
    device : str, torch.device or None
        Where to compute; None is where the network lies.
    """

    name: ClassVar[str] = "network"

    model: nn.Module
    batch_size: int = 256
    device: str | torch.device | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"model is a {type(self.model).__name__}; it must be an nn.Module")
        object.__setattr__(self, "batch_size", as_count("batch_size", self.batch_size))
        if self.device is not None:
            try:
                object.__setattr__(self, "device", torch.device(self.device))
            except RuntimeError as error:
                raise ValueError(f"device={self.device!r}; torch says: {error}") from error

    def options(self) -> dict[str, Any]:
        """What identifies the network, and how it is run."""
        return {
            "model": type(self.model).__qualname__,
            "weights": digest_of_weights(self.model),
            "batch_size": self.batch_size,
            "device": None if self.device is None else str(self.device),
        }

    @contextlib.contextmanager
    def opened(self, dataset: ImageDataset, normalization: Normalization) -> Iterator[Embed]:
        """Nothing is fitted: the network is as it is.

        Raises
        ------
        ValueError
            If the network is to move and lies on several devices.
        """
        model = self.model
        tensors = chain(model.parameters(), model.buffers())
        homes = list(dict.fromkeys(tensor.device for tensor in tensors)) or [torch.device("cpu")]
        if self.device is not None and len(homes) > 1:
            raise ValueError(
                f"device={str(self.device)!r}, but the model lies on {', '.join(map(str, homes))}; "
                "device must be None for a model on several devices"
            )
        where = homes[0] if self.device is None else torch.device(self.device)
        modes = [(module, module.training) for module in model.modules()]
        try:
            model.eval()
            if self.device is not None:
                model.to(where)
            yield lambda inputs: self._embed(inputs, where)
        finally:
            if self.device is not None:
                model.to(homes[0])
            for module, training in modes:
                module.training = training

    @torch.inference_mode()
    def _embed(self, inputs: NDArray[np.float32], where: torch.device) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(inputs), self.batch_size):
            batch = torch.from_numpy(inputs[start : start + self.batch_size]).to(where)
            features = embed(self.model, batch.contiguous(memory_format=torch.channels_last))
            parts.append(features.float().cpu())
        values: NDArray[np.float32] = torch.cat(parts).numpy()
        return values
