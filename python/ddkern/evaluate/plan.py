# SPDX-License-Identifier: Apache-2.0
"""All decisions of an evaluation before any work: what ``--dry-run`` shows and results record."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ddkern.checks import as_count, as_seed, check_choice
from ddkern.data import DistilledSet, Encoding, ImageDataset
from ddkern.data.provenance import Provenance
from ddkern.evaluate.protocols import Protocol, get_protocol
from ddkern.evaluate.task import check_same_task
from ddkern.evaluate.teachers import label_storage_bytes
from ddkern.evaluate.weighting import WEIGHTINGS, Weighting, loss_weight
from ddkern.models import ModelFactory, accelerate, digest_of_weights, make_model
from ddkern.training import (
    PixelImages,
    Precision,
    Recipe,
    TrainingSet,
    choose_device,
    choose_precision,
    train,
)
from ddkern.training.images import InputImages, one_hot
from ddkern.training.testing import measure_accuracy

__all__ = ["EvaluationPlan", "Labels", "plan_evaluation"]

Labels = Literal["auto", "hard", "soft"]

_TEST_SAMPLE = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationPlan:
    """What an evaluation is going to do.

    Attributes
    ----------
    distilled : DistilledSet
    test : ImageDataset
    protocol : Protocol
    recipe : Recipe
        The protocol's, for these images.
    weights : {"uniform", "density", "sqrt"}
    soft : bool
        Whether the soft labels of the set are learned.
    model : str, callable or nn.Module
    model_options : mapping
    lr : float
        Before decay.
    seeds : tuple of int
        One a network.
    test_epochs : tuple of int
    teacher : nn.Module or None
    precision : {"float32", "bfloat16"}
    device : torch.device
    """

    distilled: DistilledSet
    test: ImageDataset
    protocol: Protocol
    recipe: Recipe
    weights: Weighting
    soft: bool
    model: str | nn.Module | ModelFactory
    model_options: Mapping[str, Any]
    lr: float
    seeds: tuple[int, ...]
    test_epochs: tuple[int, ...]
    teacher: nn.Module | None
    precision: Precision
    device: torch.device

    def make_network(self, seed: int) -> nn.Module:
        """An untrained student on the device."""
        channels, height, width = self.distilled.image_shape
        given = isinstance(self.model, nn.Module)
        network = make_model(
            self.model,
            n_classes=self.distilled.n_classes,
            image_size=(height, width),
            in_channels=channels,
            seed=None if given else seed,
            **self.model_options,
        )
        return accelerate(network.to(self.device))

    def check_network(self) -> None:
        """Build one and let it look at two black images, so that nothing fails after hours.

        Raises
        ------
        TypeError, ValueError
            If the network cannot be built for these images, or gives no logits of these classes.
        """
        network = self.make_network(0).eval()
        with torch.inference_mode():
            logits = network(torch.zeros(2, *self.distilled.image_shape, device=self.device))
        wanted = (2, self.distilled.n_classes)
        if not isinstance(logits, torch.Tensor) or logits.shape != wanted:
            found = (
                tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            )
            raise ValueError(
                f"model={_name_of(self.model)!r} gave {found} for 2 images; it must give logits of "
                f"shape {wanted}"
            )

    def training_set(self) -> TrainingSet:
        """The distilled set on the device."""
        distilled, device = self.distilled, self.device
        inputs = torch.tensor(distilled.inputs(), device=device)
        labels = torch.tensor(distilled.labels, device=device)
        targets = one_hot(labels, distilled.n_classes)
        if self.soft:
            targets = torch.tensor(distilled.soft_labels, dtype=torch.float32, device=device)
            if distilled.soft_label_kind == "logits":
                targets = targets.softmax(dim=1)
        weight = loss_weight(distilled.sample_weight, distilled.labels, self.weights)
        real_rows = distilled.provenance.options.get("real_rows")
        real = None
        if real_rows is not None:
            real = torch.zeros(len(distilled), dtype=torch.bool, device=device)
            real[torch.as_tensor(real_rows, dtype=torch.int64)] = True
        return TrainingSet(
            InputImages(inputs),
            targets,
            torch.tensor(weight, dtype=torch.float32, device=device),
            real,
        )

    def test_images(self, rows: slice = slice(None)) -> tuple[PixelImages, torch.Tensor]:
        """Test images, normalised as the set is, and their labels, on the device."""
        chosen = np.arange(len(self.test))[rows]
        images = PixelImages(self.test.images(chosen), self.distilled.normalization, self.device)
        return images, torch.tensor(self.test.labels[chosen], device=self.device)

    def conditions(self) -> dict[str, Any]:
        """All that the numbers depend on, but for the machine, as plain values."""
        return {
            "protocol": self.protocol.key,
            "protocol_digest": self.protocol.digest(),
            "epochs": self.recipe.epochs,
            "test_epochs": list(self.test_epochs),
            "lr": self.lr,
            "set_hash": fingerprint(self.distilled),
            "method": self.distilled.provenance.method,
            "images": len(self.distilled),
            "test": self.test.name,
            "test_split": self.test.split,
            "test_hash": self.test.fingerprint(),
            "weights": self.weights,
            "labels": "teacher" if self.teacher is not None else "soft" if self.soft else "hard",
            "teacher_hash": None if self.teacher is None else digest_of_weights(self.teacher),
            "model": _name_of(self.model),
            "model_options": dict(self.model_options),
            "seeds": list(self.seeds),
            "precision": self.precision,
        }

    def environment(self) -> dict[str, Any]:
        """Where it runs."""
        recorded = Provenance.record("", {}, random_state=0)
        device = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else platform.processor() or platform.machine()
        )
        return {
            "device": str(self.device),
            "device_name": device,
            "threads": torch.get_num_threads(),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "versions": dict(recorded.versions),
            "commit": recorded.commit,
        }

    def describe(self) -> dict[str, Any]:
        """The plan for people: what is trained, how long, and what it stores."""
        n, classes = len(self.distilled), self.distilled.n_classes
        stored = self.protocol.labels == "stored"
        return {
            "protocol": f"{self.protocol.key}: {self.protocol.title}",
            "set": repr(self.distilled),
            "test": repr(self.test),
            "model": _name_of(self.model),
            "networks": len(self.seeds),
            "epochs": self.recipe.epochs,
            "steps": self.recipe.epochs * self.recipe.batches(n) * len(self.seeds),
            "images trained on": self.recipe.epochs * n * len(self.seeds),
            "images tested": len(self.test) * len(self.test_epochs) * len(self.seeds),
            "learning rate": self.lr,
            "weights": self.weights,
            "labels": "teacher" if self.teacher is not None else "soft" if self.soft else "hard",
            "stored labels (bytes)": label_storage_bytes(self.recipe.epochs, n, classes)
            if stored
            else 0,
            "device": str(self.device),
            "precision": self.precision,
        }

    def estimate_seconds(self) -> float:
        """How long the evaluation will take, from six epochs of a network and a few test images.

        An epoch of a large set is cut to eight batches; the first epoch, which also allocates, and
        those that something else on the machine slowed down do not count.
        """
        data = self.training_set()
        rows = slice(0, min(len(data), 8 * self.recipe.batch_size))
        part = TrainingSet(
            InputImages(data.images.inputs(rows)), data.targets[rows], data.weight[rows]
        )
        network = self.make_network(0)
        recipe = Recipe(
            epochs=6,
            batch_size=self.recipe.batch_size,
            optimizer=self.recipe.optimizer,
            decay=self.recipe.decay,
            augment=self.recipe.augment,
        )
        marks = [time.perf_counter()]
        train(
            network,
            part,
            recipe,
            seed=0,
            precision=self.precision,
            on_epoch=lambda _: marks.append(time.perf_counter()),
        )
        epoch = min(np.diff(marks[1:])) * self.recipe.batches(len(data)) / recipe.batches(len(part))
        images, labels = self.test_images(slice(0, _TEST_SAMPLE))
        start = time.perf_counter()
        measure_accuracy(network, images, labels, self.precision)
        look = (time.perf_counter() - start) / len(labels) * len(self.test)
        each = epoch * self.recipe.epochs + look * len(self.test_epochs)
        return float(each * len(self.seeds))


def plan_evaluation(
    distilled: DistilledSet,
    test: ImageDataset,
    protocol: str | Protocol = "E1-dsa",
    *,
    weights: Weighting = "uniform",
    labels: Labels = "auto",
    model: str | nn.Module | ModelFactory | None = None,
    model_options: Mapping[str, Any] | None = None,
    n_networks: int | None = None,
    looks: int | None = None,
    teacher: nn.Module | None = None,
    n_train: int | None = None,
    random_state: int = 0,
    precision: str = "auto",
    device: str | torch.device = "auto",
) -> EvaluationPlan:
    """Check all arguments of :func:`ddkern.evaluate.evaluate` and decide everything.

    Raises
    ------
    TypeError, ValueError
        As that function.
    """
    for name, value, kind in (
        ("distilled", distilled, DistilledSet),
        ("test", test, ImageDataset),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} is a {type(value).__name__}; it must be a {kind.__name__}")
    chosen = get_protocol(protocol)
    check_choice("weights", weights, WEIGHTINGS)
    check_same_task(distilled, test, "test")
    if chosen.labels == "set" and teacher is not None:
        raise ValueError(
            f"teacher is given, but protocol {chosen.key!r} trains on the labels of the set"
        )
    if chosen.labels != "set" and teacher is None:
        raise ValueError(
            f"teacher=None; protocol {chosen.key!r} trains on the labels that a teacher gives"
        )
    image_size = distilled.image_shape[1:]
    share = None if n_train is None else len(distilled) / as_count("n_train", n_train)
    recipe = chosen.recipe_for(image_size, share)
    options = dict(model_options or {})
    if model is None:
        model = chosen.model_for(image_size)
        options = {**dict(chosen.model_options), **options}
    count = chosen.n_networks if n_networks is None else as_count("n_networks", n_networks)
    if isinstance(model, nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__} with weights; every network of an evaluation needs "
            "fresh ones, so give a name or a factory, such as its class"
        )
    where = choose_device(device)
    seed = as_seed("random_state", random_state)
    lr = chosen.recipe.optimizer.lr
    if chosen.uses_student_lr and distilled.student_lr is not None:
        lr = distilled.student_lr
    return EvaluationPlan(
        distilled=distilled,
        test=test,
        protocol=chosen,
        recipe=recipe,
        weights=weights,
        soft=_learns_soft_labels(distilled, labels, chosen),
        model=model,
        model_options=options,
        lr=lr,
        seeds=tuple(_network_seed(seed, index) for index in range(count)),
        test_epochs=chosen.test_epochs(recipe.epochs, looks),
        teacher=teacher,
        precision=choose_precision(precision, where),
        device=where,
    )


def fingerprint(distilled: DistilledSet) -> str:
    """SHA-256 of all in a set that training can depend on."""
    digest = hashlib.sha256()
    images = distilled.images
    arrays = dict(images.arrays) if isinstance(images, Encoding) else {"images": images}
    norm = distilled.normalization
    arrays |= {
        "labels": distilled.labels,
        "sample_weight": distilled.sample_weight,
        "mean": norm.mean,
        "std": norm.std,
    }
    if norm.zca is not None:
        arrays |= {"zca_mean": norm.zca.mean, "zca_matrix": norm.zca.matrix}
    if distilled.soft_labels is not None:
        arrays["soft_labels"] = distilled.soft_labels
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    decoder = (images.decoder, dict(images.options)) if isinstance(images, Encoding) else None
    rest = [decoder, distilled.student_lr, distilled.soft_label_kind]
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def _learns_soft_labels(distilled: DistilledSet, labels: Any, protocol: Protocol) -> bool:
    check_choice("labels", labels, ("auto", "hard", "soft"))
    if protocol.labels != "set":
        if labels != "auto":
            raise ValueError(
                f"labels={labels!r}, but in protocol {protocol.key!r} a teacher labels"
            )
        return False
    if labels == "soft" and distilled.soft_labels is None:
        raise ValueError("labels='soft', but the set has no soft labels")
    soft = labels != "hard" and distilled.soft_labels is not None
    if soft and distilled.soft_label_kind == "targets":
        raise ValueError(
            f"the soft labels of the set are targets of a regression, which protocol "
            f"{protocol.key!r} does not train on; choose labels='hard'"
        )
    return soft


def _network_seed(random_state: int, index: int) -> int:
    """Independent seeds for the networks, the same ones however many there are."""
    return int(np.random.SeedSequence([random_state, index]).generate_state(1, np.uint64)[0])


def _name_of(model: str | nn.Module | ModelFactory) -> str:
    if isinstance(model, str):
        return model
    return f"{getattr(model, '__module__', '')}.{getattr(model, '__qualname__', repr(model))}"
