# SPDX-License-Identifier: Apache-2.0
"""How a network is trained, as plain values that can be compared, hashed and stored."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from ddkern.augment import DSA, CutMix, MixUp, RandomResizedCrop, ShufflePatches
from ddkern.checks import as_count, as_number, check_choice

__all__ = ["Augmentation", "Decay", "Mixing", "Optimizer", "Recipe", "describe"]

Augmentation: TypeAlias = DSA | RandomResizedCrop | ShufflePatches
Mixing: TypeAlias = CutMix | MixUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """SGD or AdamW, and its numbers.

    Attributes
    ----------
    name : {"sgd", "adamw"}
    lr : float
        Above 0; before any decay.
    momentum : float
        Of SGD, in [0, 1]. AdamW keeps torch's (0.9, 0.999).
    weight_decay : float

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or out of range.
    """

    name: Literal["sgd", "adamw"]
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_choice("name", self.name, ("sgd", "adamw"))
        for field in ("lr", "weight_decay"):
            object.__setattr__(self, field, as_number(field, getattr(self, field), at_least=0))
        object.__setattr__(
            self, "momentum", as_number("momentum", self.momentum, at_least=0, at_most=1)
        )
        if self.lr == 0:
            raise ValueError("lr=0; a learning rate must be above 0")

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """The optimiser of torch with this learning rate, and without a past."""
        if self.name == "adamw":
            return torch.optim.AdamW(parameters, lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            parameters, lr, momentum=self.momentum, weight_decay=self.weight_decay
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decay:
    """The factor of the learning rate in every epoch.

    Attributes
    ----------
    kind : str
        With e the epoch, counted from 0, of E:

        - ``"constant"``: 1;
        - ``"step"``: ``factor`` from epoch ``at`` on;
        - ``"cosine"``: (1 + cos(pi e / E)) / 2, which ends at 0;
        - ``"half_cosine"``: (1 + cos(pi e / 2E)) / 2, which ends at 1/2 (RDED);
        - ``"cosine_to_hundredth"``: from 1 to 1/100 along a cosine (SelMatch).
    at : int
        Of ``"step"``: the first epoch of the lower rate.
    factor : float
        Of ``"step"``.
    restart : bool
        Of ``"step"``: whether the optimiser is made anew then, so that momentum starts from 0, as
        in the code of DC, DSA and MTT.

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or out of range.
    """

    kind: Literal["constant", "step", "cosine", "half_cosine", "cosine_to_hundredth"]
    at: int = 0
    factor: float = 1.0
    restart: bool = False

    def __post_init__(self) -> None:
        kinds = ("constant", "step", "cosine", "half_cosine", "cosine_to_hundredth")
        check_choice("kind", self.kind, kinds)
        as_count("at", self.at, at_least=0)
        as_number("factor", self.factor, at_least=0, at_most=1)

    def at_epoch(self, epoch: int, epochs: int) -> float:
        """The factor in ``epoch`` of ``epochs``."""
        if self.kind == "constant":
            return 1.0
        if self.kind == "step":
            return self.factor if epoch >= self.at else 1.0
        if self.kind == "half_cosine":
            return (1 + math.cos(math.pi * epoch / (2 * epochs))) / 2
        cosine = (1 + math.cos(math.pi * epoch / epochs)) / 2
        return cosine if self.kind == "cosine" else 0.01 + 0.99 * cosine

    def restarts_at(self, epoch: int) -> bool:
        """Whether the optimiser is made anew before ``epoch``."""
        return self.kind == "step" and self.restart and epoch == self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    epochs, batch_size : int
        The last batch of an epoch may be smaller.
    optimizer : Optimizer
    decay : Decay
    augment : tuple of DSA, RandomResizedCrop or ShufflePatches
        Applied to every batch, in this order.
    augment_real : tuple, optional
        Instead of ``augment`` for the images of the set that are real ones (SelMatch).
    mixing : CutMix or MixUp, optional
        After ``augment``.
    loss : {"cross_entropy", "kl"}
        Of class probabilities, or the Kullback-Leibler divergence from a teacher's softened
        probabilities, summed over classes and averaged over the batch.
    temperature : float
        Of ``"kl"``: both sides' logits are divided by it.
    temperature_squared : bool
        Whether ``"kl"`` is multiplied by the square of ``temperature``, which G. Hinton et al.
        (2015, section 2) do and SRe2L does not.
    unmixed_forward : bool
        Whether the network also sees every batch before it is mixed, in training mode and without
        a loss, which moves the averages of batch norms and nothing else (RDED's code).

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or out of range.
    """

    epochs: int
    batch_size: int
    optimizer: Optimizer
    decay: Decay
    augment: tuple[Augmentation, ...] = ()
    augment_real: tuple[Augmentation, ...] | None = None
    mixing: Mixing | None = None
    loss: Literal["cross_entropy", "kl"] = "cross_entropy"
    temperature: float = 1.0
    temperature_squared: bool = False
    unmixed_forward: bool = False

    def __post_init__(self) -> None:
        as_count("epochs", self.epochs)
        as_count("batch_size", self.batch_size)
        check_choice("loss", self.loss, ("cross_entropy", "kl"))
        if as_number("temperature", self.temperature, at_least=0) == 0:
            raise ValueError("temperature=0; it must be above 0")

    def batches(self, n: int) -> int:
        """Batches of an epoch over ``n`` images."""
        return -(-n // self.batch_size)


def describe(value: Any) -> Any:
    """A record with all records in it as plain values, which JSON holds; ``type`` names classes."""
    if is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: describe(getattr(value, f.name)) for f in fields(value)}
        return {"type": type(value).__name__, **plain}
    if isinstance(value, (tuple, list)):
        return [describe(entry) for entry in value]
    return value
