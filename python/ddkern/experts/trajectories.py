# SPDX-License-Identifier: Apache-2.0
"""Training of experts whose trajectories are kept."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.utils import vector_to_parameters

from ddkern.augment import DSA
from ddkern.checks import as_count, as_seed
from ddkern.data import ImageDataset, Normalization
from ddkern.experts.buffer import ExpertBuffer, StoredDtype, as_stored, expert_path
from ddkern.experts.sharpness import GSAM
from ddkern.experts.untrained import structure_of, untrained_network
from ddkern.files import replaced_when_complete, reserved
from ddkern.models import FlatNetwork, accelerate
from ddkern.progress import ProgressArgument, RecordProgress, report_progress
from ddkern.training import (
    Decay,
    Optimizer,
    PixelImages,
    Precision,
    Recipe,
    TrainingSet,
    choose_device,
    choose_precision,
    measure_accuracy,
)
from ddkern.training.images import one_hot
from ddkern.training.loop import Batch, augmented_batches
from ddkern.training.loss import cross_entropy
from ddkern.training.precision import autocast
from ddkern.training.recipe import describe
from ddkern.updates import sgd_step

__all__ = ["expert_recipe", "train_experts"]


def expert_recipe(epochs: int = 50, *, augment: DSA | None = DSA(), lr: float = 0.01) -> Recipe:  # noqa: B008
    """How MTT trains its experts: plain SGD at one rate, batches of 256, DSA.

    Parameters
    ----------
    epochs : int
    augment : DSA or None
    lr : float

    References
    ----------
    G. Cazenavette et al., "Dataset distillation by matching training trajectories", CVPR 2022, and
    its code.
    """
    return Recipe(
        epochs=epochs,
        batch_size=256,
        optimizer=Optimizer(name="sgd", lr=lr),
        decay=Decay(kind="constant"),
        augment=() if augment is None else (augment,),
    )


def train_experts(
    dataset: ImageDataset,
    folder: str | os.PathLike[str],
    *,
    n_experts: int,
    normalization: Normalization,
    model: str = "convnet-d3",
    model_options: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    sharpness: GSAM | None = None,
    test: ImageDataset | None = None,
    dtype: StoredDtype = "float32",
    at_once: int = 1,
    random_state: int = 0,
    precision: str = "auto",
    device: str | torch.device = "auto",
    progress: ProgressArgument = None,
) -> ExpertBuffer:
    """Train networks on real images and keep their parameters after every epoch.

    A call that was interrupted goes on where it was when it is repeated, and one with more experts
    adds to those that are there: what becomes of an expert depends on its number and
    ``random_state``, not on the others.

    Parameters
    ----------
    dataset : ImageDataset
        Held in memory, one byte a value.
    folder : path-like
        For a buffer; see :class:`ExpertBuffer`. An expert takes ``epochs + 1`` times its
        parameters: 65 MB for 50 epochs of ConvNet-D3 in float32.
    n_experts : int
    normalization : Normalization
    model : str
        A name of :func:`ddkern.models.make_model`.
    model_options : mapping, optional
    recipe : Recipe, optional
        :func:`expert_recipe` by default. SGD and cross entropy, without mixing.
    sharpness : GSAM, optional
        Takes its direction instead of the gradient.
    test : ImageDataset, optional
        Every expert is tested on it at the end, unless it keeps running statistics: its norms
        work with those of batches, and there are no others.
    dtype : {"float32", "bfloat16"}
        Of the files. The training goes on from float32 in any case.
    at_once : int
        Experts that are trained side by side, as one batched computation: worth it where one
        network does not fill the device. Equal up to rounding to training them one by one.
    random_state : int
    precision : {"auto", "float32", "bfloat16"}
    device : str or torch.device
    progress : bool or callable, optional
        See :mod:`ddkern.progress`; counts epochs of all experts.

    Returns
    -------
    ExpertBuffer
        With ``n_experts`` experts or more.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule, ``folder`` has a buffer of another kind, or a training
        diverges.
    BlockingIOError
        If another process trains experts for the same folder.
    """
    recipe = expert_recipe() if recipe is None else recipe
    _check_recipe(recipe)
    n_experts, at_once = as_count("n_experts", n_experts), as_count("at_once", at_once)
    if sharpness is not None and not isinstance(sharpness, GSAM):
        raise TypeError(f"sharpness is a {type(sharpness).__name__}; it must be a GSAM or None")
    normalization.check_shape(dataset.image_shape, "dataset")
    seed, where = as_seed("random_state", random_state), choose_device(device)
    structure = structure_of(dataset, model, model_options)
    network = untrained_network(structure, 0).to(where)
    keeps_statistics = any(True for _ in network.buffers())
    if keeps_statistics and at_once > 1:
        raise ValueError(
            f"at_once={at_once}, but {model} keeps running statistics; it must be 1 for such"
        )
    flat = FlatNetwork(network)
    chosen = choose_precision(precision, where)
    conditions = {
        **structure,
        "dataset": dataset.name,
        "dataset_hash": dataset.fingerprint(),
        "normalization_hash": normalization.fingerprint(),
        "recipe": describe(recipe),
        "sharpness": describe(sharpness),
        "random_state": seed,
        "precision": chosen,
    }
    buffer = ExpertBuffer.create(
        Path(folder),
        conditions,
        n_checkpoints=recipe.epochs + 1,
        n_parameters=flat.n_parameters,
        dtype=dtype,
    )
    missing = [number for number in range(n_experts) if number not in buffer.numbers]
    if missing:
        if at_once == 1:
            accelerate(network)  # its kernels know no vmap
        trainer = _Trainer(buffer, flat, recipe, sharpness, chosen, seed)
        labels = torch.tensor(dataset.labels, device=where)
        data = TrainingSet(
            PixelImages.of_dataset(dataset, normalization, where),
            one_hot(labels, dataset.n_classes),
            torch.ones(len(dataset), device=where),
        )
        show = report_progress(progress, "train experts", "epochs")
        with reserved(buffer.folder), show as record:
            clock = _Clock(record, n_experts * recipe.epochs)
            clock.done = (n_experts - len(missing)) * recipe.epochs
            for group in trainer.groups(missing, at_once, clock):
                thetas = trainer.train(group, data, clock)
                for number, theta in zip(group.numbers, thetas, strict=True):
                    accuracy = None
                    if test is not None and not keeps_statistics:
                        vector_to_parameters(theta, network.parameters())
                        accuracy = _accuracy(network, test, normalization, where, chosen)
                    trainer.finish(number, accuracy)
    return ExpertBuffer.open(folder)


@dataclass(slots=True)
class _Clock:
    """Counts epochs of all experts for the progress report."""

    record: RecordProgress | None
    total: int
    done: int = 0
    start: float = 0.0

    def __post_init__(self) -> None:
        self.start = time.monotonic()

    def add(self, epochs: int, note: str) -> None:
        self.done += epochs
        if self.record is not None:
            self.record(self.done, self.total, time.monotonic() - self.start, note)


@dataclass(slots=True, eq=False)
class _Group:
    """Experts that are trained side by side, all after the same number of epochs.

    ``theta`` and ``velocity`` have shape (n_experts, n_parameters).
    """

    numbers: Sequence[int]
    epoch: int
    theta: Tensor
    velocity: Tensor


class _Trainer:
    """The loop over epochs for groups of experts, and the files that it leaves.

    While an expert is trained it has ``expert-<number>.partial``, its rows so far, and
    ``expert-<number>.state``, from which it goes on.
    """

    def __init__(
        self,
        buffer: ExpertBuffer,
        network: FlatNetwork,
        recipe: Recipe,
        sharpness: GSAM | None,
        precision: Precision,
        seed: int,
    ) -> None:
        self._buffer, self._network, self._recipe = buffer, network, recipe
        self._sharpness, self._precision, self._seed = sharpness, precision, seed

    def groups(self, numbers: Sequence[int], at_once: int, clock: _Clock) -> Iterator[_Group]:
        """Divide experts into groups of the same epoch, those that are furthest first."""
        states = {number: self._load_state(number) for number in numbers}
        clock.done += sum(epoch for epoch, _, _ in states.values())
        waiting = sorted(numbers, key=lambda number: (-states[number][0], number))
        while waiting:
            epoch = states[waiting[0]][0]
            group = [number for number in waiting if states[number][0] == epoch][:at_once]
            waiting = [number for number in waiting if number not in group]
            yield _Group(
                group,
                epoch,
                torch.stack([states[number][1] for number in group]),
                torch.stack([states[number][2] for number in group]),
            )

    def train(self, group: _Group, data: TrainingSet, clock: _Clock) -> Tensor:
        """Train a group to the end; returns the parameters."""
        recipe = self._recipe
        device = data.device
        theta, velocity = group.theta.to(device), group.velocity.to(device)
        for epoch in range(group.epoch, recipe.epochs):
            rate = recipe.optimizer.lr * recipe.decay.at_epoch(epoch, recipe.epochs)
            if recipe.decay.restarts_at(epoch):
                velocity = torch.zeros_like(velocity)
            seeds = [_seed_of(self._seed, number) for number in group.numbers]
            batches = [augmented_batches(data, recipe, seed, epoch) for seed in seeds]
            for parts in zip(*batches, strict=True):
                gradient = self._direction(theta, parts) + recipe.optimizer.weight_decay * theta
                sgd_step(
                    theta,
                    velocity,
                    gradient,
                    lr=rate,
                    momentum=recipe.optimizer.momentum,
                    in_place=True,
                )
            for index, number in enumerate(group.numbers):
                if not torch.isfinite(theta[index]).all():
                    raise ValueError(
                        f"expert {number} has parameters that are NaN or infinite after epoch "
                        f"{epoch} of {recipe.epochs} with a learning rate of {rate:.6g}; the "
                        "training has diverged"
                    )
                self._append(number, epoch + 1, theta[index], velocity[index])
            clock.add(len(group.numbers), f"expert {group.numbers[0]}")
        return theta

    def finish(self, number: int, accuracy: float | None) -> None:
        """Give the file of an expert its name."""
        path = expert_path(self._buffer.folder, number)
        with replaced_when_complete(path.with_suffix(".json")) as file:
            content = {"accuracy": accuracy, "seed": _seed_of(self._seed, number)}
            file.write((json.dumps(content) + "\n").encode())
        path.with_suffix(".partial").replace(path)
        path.with_suffix(".state").unlink()

    def _direction(self, theta: Tensor, batches: tuple[Batch, ...]) -> Tensor:
        gradient_at = self._gradient_alone if len(batches) == 1 else self._gradients_together
        if self._sharpness is None:
            return gradient_at(theta, batches)
        return self._sharpness.direction(theta, lambda at: gradient_at(at, batches))

    def _gradient_alone(self, theta: Tensor, batches: tuple[Batch, ...]) -> Tensor:
        parameters = theta[0].detach().requires_grad_()
        (batch,) = batches
        with torch.enable_grad():
            loss = self._loss(parameters, batch.inputs, batch.targets, batch.weight)
        (gradient,) = torch.autograd.grad(loss, parameters)
        return gradient[None]

    def _gradients_together(self, theta: Tensor, batches: tuple[Batch, ...]) -> Tensor:
        inputs, targets, weight = (
            torch.stack([getattr(batch, name) for batch in batches])
            for name in ("inputs", "targets", "weight")
        )
        gradients: Callable[..., Tensor] = vmap(grad(self._loss))
        return gradients(theta, inputs, targets, weight)

    def _loss(self, theta: Tensor, inputs: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        with autocast(self._precision, inputs.device):
            logits = self._network(theta, inputs)
        return cross_entropy(logits.float(), targets, weight)

    def _append(self, number: int, epoch: int, theta: Tensor, velocity: Tensor) -> None:
        """Write a row, and then from where to go on; a row without that is written again."""
        path = expert_path(self._buffer.folder, number)
        row = as_stored(theta, self._buffer.dtype)
        with path.with_suffix(".partial").open("r+b") as file:
            file.seek(epoch * len(row))
            file.write(row)
        self._save_state(number, epoch, theta, velocity)

    def _save_state(self, number: int, epoch: int, theta: Tensor, velocity: Tensor) -> None:
        path = expert_path(self._buffer.folder, number).with_suffix(".state")
        # Clones: a row of a stack would drag the whole of it into the file.
        state = {"epoch": epoch, "theta": theta.cpu().clone(), "velocity": velocity.cpu().clone()}
        with replaced_when_complete(path) as file:
            torch.save(state, file)

    def _load_state(self, number: int) -> tuple[int, Tensor, Tensor]:
        """Epochs that are done, parameters, velocity; a new expert gets its files."""
        path = expert_path(self._buffer.folder, number)
        state = path.with_suffix(".state")
        if not state.exists():
            seed = _seed_of(self._seed, number)
            network = untrained_network(self._buffer.conditions, seed)
            theta = self._network.parameters_of(network)
            path.with_suffix(".partial").write_bytes(as_stored(theta, self._buffer.dtype))
            self._save_state(number, 0, theta, torch.zeros_like(theta))
        found = torch.load(state, map_location="cpu", weights_only=True)
        return int(found["epoch"]), found["theta"], found["velocity"]


def _seed_of(random_state: int, number: int) -> int:
    """The seed of an expert: of its weights, of its order of images, of its augmentation."""
    sequence = np.random.SeedSequence(random_state, spawn_key=(number,))
    return int(sequence.generate_state(1, np.uint64)[0])


def _accuracy(
    network: nn.Module,
    test: ImageDataset,
    normalization: Normalization,
    device: torch.device,
    precision: Precision,
) -> float:
    labels = torch.tensor(test.labels, device=device)
    images = PixelImages.of_dataset(test, normalization, device)
    return measure_accuracy(network, images, labels, precision)


def _check_recipe(recipe: Recipe) -> None:
    if recipe.optimizer.name != "sgd":
        raise ValueError(f"recipe has the optimizer {recipe.optimizer.name!r}; it must be 'sgd'")
    for name in ("mixing", "augment_real"):
        if getattr(recipe, name) is not None:
            raise ValueError(f"recipe has {name}={getattr(recipe, name)!r}; experts use none")
    if recipe.loss != "cross_entropy":
        raise ValueError(f"recipe has loss={recipe.loss!r}; it must be 'cross_entropy'")
