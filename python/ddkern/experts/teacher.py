# SPDX-License-Identifier: Apache-2.0
"""Training of a teacher, once for each set of conditions."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddkern.augment import DSA
from ddkern.checks import as_count, as_seed
from ddkern.data import ImageDataset, Normalization
from ddkern.experts.untrained import structure_of, untrained_network
from ddkern.files import replaced_when_complete
from ddkern.models import accelerate
from ddkern.optional import import_optional
from ddkern.progress import ProgressArgument, report_progress
from ddkern.training import (
    Decay,
    EpochReport,
    Optimizer,
    PixelImages,
    Recipe,
    TrainingSet,
    choose_device,
    choose_precision,
    measure_accuracy,
    train,
)
from ddkern.training.images import one_hot
from ddkern.training.recipe import describe

__all__ = ["Teacher", "load_teacher", "teacher_recipe", "train_teacher"]

_CONDITIONS = "ddkern_teacher"


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """A trained network and where it comes from.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode, on the device it was trained or loaded on.
    conditions : mapping
        All that it depends on: network, recipe, data, seed, precision.
    accuracy : float or None
        On the test images that were given, after the last epoch.
    """

    model: nn.Module
    conditions: Mapping[str, Any]
    accuracy: float | None


def teacher_recipe(epochs: int = 200, *, augment: bool = True) -> Recipe:
    """How DD-Ranking trains its networks for CIFAR: SGD, batches of 512, a tenth after half.

    Parameters
    ----------
    epochs : int
    augment : bool
        Whether images are shifted and mirrored, as is common for CIFAR.
    """
    return Recipe(
        epochs=as_count("epochs", epochs),
        batch_size=512,
        optimizer=Optimizer(name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4),
        decay=Decay(kind="step", at=(epochs + 1) // 2, factor=0.1),
        augment=(DSA(strategy="crop_flip", mode="all"),) if augment else (),
    )


def train_teacher(
    dataset: ImageDataset,
    *,
    normalization: Normalization,
    model: str = "convnet-d3",
    model_options: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    test: ImageDataset | None = None,
    random_state: int = 0,
    precision: str = "auto",
    device: str | torch.device = "auto",
    folder: str | os.PathLike[str] | None = None,
    progress: ProgressArgument = None,
) -> Teacher:
    """Train a network on real images, or load it where that was done before.

    Parameters
    ----------
    dataset : ImageDataset
        Held in memory, one byte a value.
    normalization : Normalization
    model : str
        A name of :func:`ddkern.models.make_model`.
    model_options : mapping, optional
    recipe : Recipe, optional
        :func:`teacher_recipe` by default.
    test : ImageDataset, optional
        Tested on at the end.
    random_state : int
    precision : {"auto", "float32", "bfloat16"}
    device : str or torch.device
    folder : path-like, optional
        Keeps the network as ``teacher-<digest of the conditions>.safetensors``, and after every
        epoch what it takes to go on from there. A call with the same conditions finds either.
    progress : bool or callable, optional
        See :mod:`ddkern.progress`; counts epochs.

    Returns
    -------
    Teacher

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule, or the training diverges.
    UnsupportedError
        If ``folder`` is given and the package safetensors is not installed.
    """
    where = choose_device(device)
    chosen = choose_precision(precision, where)
    seed = as_seed("random_state", random_state)
    recipe = teacher_recipe() if recipe is None else recipe
    normalization.check_shape(dataset.image_shape, "dataset")
    conditions = {
        **structure_of(dataset, model, model_options),
        "dataset": dataset.name,
        "dataset_hash": dataset.fingerprint(),
        "test_hash": None if test is None else test.fingerprint(),
        "normalization_hash": normalization.fingerprint(),
        "recipe": describe(recipe),
        "random_state": seed,
        "precision": chosen,
    }
    path = checkpoint = None
    if folder is not None:
        import_optional("safetensors.torch", "a teacher's file", "data")
        digest = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()
        path = Path(folder) / f"teacher-{digest[:16]}.safetensors"
        checkpoint = path.with_suffix(".partial")
        if path.exists():
            return load_teacher(path, device=where)
        path.parent.mkdir(parents=True, exist_ok=True)
    network = untrained_network(conditions, seed).to(where)
    accelerate(network)
    _train(network, dataset, normalization, recipe, seed, chosen, where, checkpoint, progress)
    accuracy = None
    if test is not None:
        labels = torch.tensor(test.labels, device=where)
        images = PixelImages.of_dataset(test, normalization, where)
        accuracy = measure_accuracy(network, images, labels, chosen)
    accelerate(network, enabled=False)
    teacher = Teacher(network.eval(), conditions, accuracy)
    if path is not None:
        _save(teacher, path)
    return teacher


def load_teacher(path: str | os.PathLike[str], *, device: str | torch.device = "auto") -> Teacher:
    """Read a teacher that :func:`train_teacher` kept. Nothing in the file is executed.

    Parameters
    ----------
    path : path-like
    device : str or torch.device

    Raises
    ------
    ValueError
        If the file holds something else.
    UnsupportedError
        If the package safetensors is not installed.
    """
    safetensors = import_optional("safetensors", "a teacher's file", "data")
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if _CONDITIONS not in metadata:
        raise ValueError(f"{path} is a safetensors file, but not one of a teacher")
    content = json.loads(metadata[_CONDITIONS])
    network = untrained_network(content["conditions"], 0)
    network.load_state_dict(state)
    return Teacher(
        network.to(choose_device(device)).eval(), content["conditions"], content["accuracy"]
    )


def _train(
    network: nn.Module,
    dataset: ImageDataset,
    normalization: Normalization,
    recipe: Recipe,
    seed: int,
    precision: Any,
    device: torch.device,
    checkpoint: Path | None,
    progress: ProgressArgument,
) -> None:
    labels = torch.tensor(dataset.labels, device=device)
    data = TrainingSet(
        PixelImages.of_dataset(dataset, normalization, device),
        one_hot(labels, dataset.n_classes),
        torch.ones(len(dataset), device=device),
    )
    start = time.monotonic()
    with report_progress(progress, "train teacher", "epochs") as record:

        def after(report: EpochReport) -> None:
            if record is not None:
                seconds = time.monotonic() - start
                record(report.epoch + 1, recipe.epochs, seconds, f"loss {report.loss:.4f}")

        train(
            network,
            data,
            recipe,
            seed=seed,
            precision=precision,
            checkpoint=checkpoint,
            on_epoch=after,
        )


def _save(teacher: Teacher, path: Path) -> None:
    safetensors = import_optional("safetensors.torch", "a teacher's file", "data")
    content = {"conditions": dict(teacher.conditions), "accuracy": teacher.accuracy}
    state = {name: value.contiguous() for name, value in teacher.model.state_dict().items()}
    with replaced_when_complete(path) as file:
        file.write(safetensors.save(state, {_CONDITIONS: json.dumps(content)}))
