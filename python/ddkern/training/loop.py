# SPDX-License-Identifier: Apache-2.0
"""The loop over epochs and batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddkern.augment import DrawKey
from ddkern.files import replaced_when_complete
from ddkern.training.images import TrainingSet
from ddkern.training.loss import cross_entropy, softened_divergence
from ddkern.training.precision import Precision, autocast
from ddkern.training.recipe import Augmentation, Recipe
from ddkern.training.testing import logits_of

__all__ = ["Batch", "EpochReport", "Labeller", "augmented_batches", "train"]


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What is known at the end of an epoch.

    Attributes
    ----------
    epoch : int
        Counted from 0.
    loss : float
        Mean over the batches of the epoch.
    """

    epoch: int
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A batch as the network sees it.

    Attributes
    ----------
    first : int
        Position of its first image in the epoch.
    unmixed, inputs : Tensor, shape (n, channels, height, width)
        Before and after mixing.
    targets : Tensor, shape (n, n_classes)
    weight : Tensor, shape (n,)
    """

    first: int
    unmixed: Tensor
    inputs: Tensor
    targets: Tensor
    weight: Tensor


class Labeller(Protocol):
    """Gives the logits that a student is taught by."""

    def __call__(self, batch: Batch, epoch: int) -> Tensor:
        """Logits of shape (n, n_classes), without a gradient."""


def train(
    model: nn.Module,
    data: TrainingSet,
    recipe: Recipe,
    *,
    seed: int,
    lr: float | None = None,
    precision: Precision = "float32",
    teacher: Labeller | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[EpochReport], object] | None = None,
) -> None:
    """Train a network in place.

    Parameters
    ----------
    model : nn.Module
        On the device of ``data``.
    data : TrainingSet
    recipe : Recipe
    seed : int
        Decides the order of the images in each epoch and every augmentation, each by a function of
        the seed, the epoch and the batch alone.
    lr : float, optional
        Instead of the recipe's.
    precision : {"float32", "bfloat16"}
    teacher : Labeller, optional
        For the loss ``"kl"``, which cannot do without.
    checkpoint : path-like, optional
        A file that is written after every epoch and removed at the end. If it is there at the
        beginning, training goes on from it.
    on_epoch : callable, optional
        Called after every epoch. An exception it raises ends the training.

    Raises
    ------
    ValueError
        If the loss needs a teacher and there is none, or it is not finite any more.
    """
    if (recipe.loss == "kl") != (teacher is not None):
        raise ValueError(
            f"loss={recipe.loss!r} and teacher={teacher}; 'kl' needs a teacher, and only 'kl' does"
        )
    rate = recipe.optimizer.lr if lr is None else lr
    optimizer = recipe.optimizer.build(model.parameters(), rate)
    path = None if checkpoint is None else Path(checkpoint)
    first_epoch = _resume(path, model, optimizer)
    for epoch in range(first_epoch, recipe.epochs):
        current = rate * recipe.decay.at_epoch(epoch, recipe.epochs)
        if recipe.decay.restarts_at(epoch):
            optimizer = recipe.optimizer.build(model.parameters(), current)
        for group in optimizer.param_groups:
            group["lr"] = current
        model.train()
        total = torch.zeros((), device=data.device)
        for batch in augmented_batches(data, recipe, seed, epoch):
            loss = _loss(model, batch, epoch, recipe, precision, teacher)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        mean_loss = float(total) / recipe.batches(len(data))
        if not np.isfinite(mean_loss):
            raise ValueError(
                f"the loss is {mean_loss} in epoch {epoch} of {recipe.epochs} with a learning rate "
                f"of {current:.6g}; the training has diverged"
            )
        if path is not None:
            _save(path, epoch + 1, model, optimizer)
        if on_epoch is not None:
            on_epoch(EpochReport(epoch, mean_loss))
    if path is not None:
        path.unlink(missing_ok=True)


def augmented_batches(data: TrainingSet, recipe: Recipe, seed: int, epoch: int) -> Iterator[Batch]:
    """Yield every :class:`Batch` of an epoch, the same for the same arguments everywhere."""
    order = epoch_order(len(data), seed, epoch)
    for step, first in enumerate(range(0, len(data), recipe.batch_size)):
        chosen = order[first : first + recipe.batch_size]
        rows = torch.from_numpy(chosen).to(data.device)
        key = DrawKey(seed, epoch, step)
        clean = data.images.inputs(rows)
        inputs = _augment(clean, recipe.augment, key)
        if recipe.augment_real is not None and data.real is not None:
            real = data.real[rows][:, None, None, None]
            inputs = torch.where(real, _augment(clean, recipe.augment_real, key), inputs)
        targets, weight, unmixed = data.targets[rows], data.weight[rows], inputs
        if recipe.mixing is not None:
            mixed = recipe.mixing(inputs, key, targets, weight)
            inputs = mixed.images
            targets = targets if mixed.labels is None else mixed.labels
            weight = weight if mixed.weights is None else mixed.weights
        yield Batch(first, unmixed, inputs, targets, weight)


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of ``n`` images in an epoch, by counter-based random numbers."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)


def _augment(inputs: Tensor, augment: tuple[Augmentation, ...], key: DrawKey) -> Tensor:
    for operation in augment:
        inputs = operation(inputs, key)
    return inputs


def _loss(
    model: nn.Module,
    batch: Batch,
    epoch: int,
    recipe: Recipe,
    precision: Precision,
    teacher: Labeller | None,
) -> Tensor:
    if recipe.unmixed_forward:
        with torch.no_grad(), autocast(precision, batch.inputs.device):
            logits_of(model, batch.unmixed)
    with autocast(precision, batch.inputs.device):
        logits = logits_of(model, batch.inputs)
    if teacher is None:
        return cross_entropy(logits, batch.targets, batch.weight)
    return softened_divergence(
        logits,
        teacher(batch, epoch),
        batch.weight,
        recipe.temperature,
        squared=recipe.temperature_squared,
    )


def _save(path: Path, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    with replaced_when_complete(path) as file:
        torch.save(state, file)


def _resume(path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if path is None or not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])
