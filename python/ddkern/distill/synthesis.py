# SPDX-License-Identifier: Apache-2.0
"""Images that are learned: where they begin, the loop that moves them, and what it keeps.

What methods that optimise a set share. Such a method says what an iteration does; everything it
draws depends on the seed and the number of the iteration alone, so that a run which was ended goes
on as if it had not been. Importing this module needs torch.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddkern.augment import DSA, DrawKey
from ddkern.checks import as_count
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.data.exchange.pt_files import read_pt_file
from ddkern.distill.features import features_of_class
from ddkern.distill.options import Configured
from ddkern.distill.selection import nearest_to_centroids, random_members
from ddkern.distill.stages import StageLog, digest_of
from ddkern.evaluate import evaluate, get_protocol
from ddkern.files import replaced_when_complete, reserved
from ddkern.models import make_model
from ddkern.progress import ProgressArgument, report_progress
from ddkern.training import PixelImages, choose_device
from ddkern.updates import ema

__all__ = [
    "Learning",
    "LearningMethod",
    "Looks",
    "RandomNetworks",
    "RealImages",
    "Synthesis",
    "augment_steps",
    "draws_of",
]

# At most this share of the time goes into saving.
_SHARE_OF_SAVING = 0.05
_STATE, _HISTORY = "synthesis.pt", "history.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looks:
    """How the set is tested while it is learned.

    The test images decide nothing: the set that is returned is the last one.

    Attributes
    ----------
    test : ImageDataset
    every : int
        Iterations from one look to the next; the last one is always looked at.
    protocol : str
        Of :mod:`ddkern.evaluate`.
    n_networks : int
    """

    test: ImageDataset
    every: int
    protocol: str = "E1-dsa"
    n_networks: int = 1

    def __post_init__(self) -> None:
        as_count("every", self.every)
        as_count("n_networks", self.n_networks)
        get_protocol(self.protocol)


class LearningMethod(Configured, Protocol):
    """The fields that methods which learn images share; see :class:`ddkern.distill.MTT`."""

    @property
    def ipc(self) -> int:
        """Images per class."""

    @property
    def iterations(self) -> int:
        """In all."""

    @property
    def lr_images(self) -> float:
        """Learning rate of the images."""

    @property
    def momentum(self) -> float:
        """Of their SGD."""

    @property
    def init(self) -> str:
        """Where images begin."""

    @property
    def device(self) -> str:
        """Where to compute."""

    @property
    def folder(self) -> Path | None:
        """Where the state is kept."""

    @property
    def looks(self) -> Looks | None:
        """How the set is tested on the way."""


def _first_images(
    dataset: ImageDataset, normalization: Normalization, ipc: int, init: str, random_state: int
) -> NDArray[np.float32]:
    """Images of the methods ``random`` or ``k-means`` (on pixels), or noise; class after class."""
    if init == "noise":
        drawn = []
        for label in range(dataset.n_classes):
            sequence = np.random.SeedSequence(random_state, spawn_key=(label,))
            noise = np.random.Generator(np.random.Philox(sequence))
            drawn.append(noise.standard_normal((ipc, *dataset.image_shape), np.float32))
        return np.concatenate(drawn)
    counts, rows = dataset.class_counts, []
    for label in range(dataset.n_classes):
        if init == "real":
            members = random_members(int(counts[label]), ipc, random_state, label)
        else:
            members = nearest_to_centroids(
                features_of_class(dataset, normalization, _flattened, label),
                label,
                ipc=ipc,
                n_init=1,
                max_iter=300,
                random_state=random_state,
            ).members
        rows.append(dataset.rows_of_class(label)[members])
    return normalization.apply(dataset.images(np.concatenate(rows)))


def _flattened(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    return inputs.reshape(len(inputs), -1)


def draws_of(random_state: int, iteration: int) -> np.random.Generator:
    """What an iteration draws from: a stream of its own for every seed below 2**64."""
    key = np.array([random_state, iteration], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def augment_steps(
    augment: DSA | None, random_state: int, iteration: int
) -> Callable[[Tensor, int], Tensor] | None:
    """The augmentation of an iteration as a function of inputs and step."""
    if augment is None:
        return None
    return lambda inputs, step: augment(inputs, DrawKey(random_state, iteration, step))


class RealImages:
    """Real images on a device, drawn class by class.

    Parameters
    ----------
    dataset : ImageDataset
        Held in memory, one byte a value.
    normalization : Normalization
    device : torch.device
    """

    def __init__(
        self, dataset: ImageDataset, normalization: Normalization, device: torch.device
    ) -> None:
        self._images = PixelImages.of_dataset(dataset, normalization, device)
        self._rows = [dataset.rows_of_class(label) for label in range(dataset.n_classes)]
        self._device = device

    def draw(self, label: int, count: int, generator: np.random.Generator) -> Tensor:
        """So many different images of a class, or all of them where there are fewer."""
        rows = self._rows[label]
        chosen = generator.choice(rows, min(count, len(rows)), replace=False, shuffle=False)
        return self._images.inputs(torch.from_numpy(chosen).to(self._device))


class RandomNetworks:
    """Untrained networks for a data set, each with weights of its own.

    Parameters
    ----------
    model : str
        A name of :func:`ddkern.models.make_model`.
    model_options : mapping
    dataset : ImageDataset
    device : torch.device
    """

    def __init__(
        self,
        model: str,
        model_options: Mapping[str, Any],
        dataset: ImageDataset,
        device: torch.device,
    ) -> None:
        channels, height, width = dataset.image_shape
        self._model, self._device = model, device
        self._arguments = {
            "n_classes": dataset.n_classes,
            "image_size": (height, width),
            "in_channels": channels,
            **model_options,
        }

    def draw(self, generator: np.random.Generator) -> nn.Module:
        """The next one, in training mode."""
        seed = int(generator.integers(1 << 63))
        return make_model(self._model, seed=seed, **self._arguments).to(self._device)


@dataclass(slots=True, eq=False)
class _Learned:
    """A tensor that is learned by SGD, and the average of where it was."""

    value: Tensor
    optimizer: torch.optim.SGD
    ema: float | None
    average: Tensor


@dataclass(slots=True)
class _History:
    """Losses of all iterations, and accuracies of the looks."""

    losses: list[float] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)


class Synthesis:
    """Tensors that are learned, each by SGD of its own, and a folder that they are kept in.

    Parameters
    ----------
    name : str
        What messages and progress call it.
    conditions : mapping
        All that the result depends on but the number of iterations, as plain values.
    folder : Path or None
        Keeps ``synthesis.pt``, from which a second run goes on, and ``history.json``: the loss of
        every iteration, and accuracies.

    Raises
    ------
    ValueError
        If the folder belongs to a run under other conditions, or the file was cut off.
    """

    def __init__(self, name: str, conditions: Mapping[str, Any], folder: Path | None) -> None:
        self._name, self._folder = name, folder
        self._digest = digest_of(json.loads(json.dumps(dict(conditions))))
        self._learned: dict[str, _Learned] = {}
        self._history = _History()
        self._iteration = 0
        self._saved_at, self._save_seconds = 0.0, 0.0
        self._kept: dict[str, Any] = {}
        if folder is not None and (folder / _STATE).exists():
            self._kept = read_pt_file(folder / _STATE)
            if self._kept.get("conditions") != self._digest:
                raise ValueError(
                    f"folder={str(folder)!r} has {_STATE} of a run with other options, data or "
                    "seed; use another folder, or remove the file"
                )

    def learn(
        self, name: str, start: Tensor, *, lr: float, momentum: float, ema: float | None = None
    ) -> Tensor:
        """A tensor that begins at ``start``, or where the folder says it was.

        ``ema`` is the decay of an exponential moving average, which :meth:`result` gives then.
        """
        value = start.detach().clone().requires_grad_()
        entry = _Learned(
            value, torch.optim.SGD([value], lr, momentum=momentum), ema, value.detach().clone()
        )
        if self._kept:
            kept = self._kept["learned"][name]
            with torch.no_grad():
                value.copy_(kept["value"])
            entry.optimizer.load_state_dict(kept["optimizer"])
            entry.average.copy_(kept["average"])
        self._learned[name] = entry
        return value

    def descend(self, loss: Tensor) -> float:
        """One step of every tensor down the gradient of a loss, which is returned as a number.

        Raises
        ------
        ValueError
            If the loss, or what becomes of a tensor, is not finite. What the folder keeps is from
            before it.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(
                f"the loss of {self._name} is {value} in iteration {self._iteration}; "
                "learning rates may be too large"
            )
        for entry in self._learned.values():
            entry.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for name, entry in self._learned.items():
            entry.optimizer.step()
            if not torch.isfinite(entry.value).all():
                raise ValueError(
                    f"{name} of {self._name} became NaN or infinite in iteration "
                    f"{self._iteration}; learning rates may be too large"
                )
        return value

    def result(self, name: str) -> Tensor:
        """What was learned: the average where there is one."""
        entry = self._learned[name]
        return (entry.value.detach() if entry.ema is None else entry.average).clone()

    def run(
        self,
        advance: Callable[[int], float],
        iterations: int,
        *,
        snapshot: Callable[[], DistilledSet],
        looks: Looks | None = None,
        n_train: int | None = None,
        random_state: int = 0,
        device: torch.device | str = "auto",
        progress: ProgressArgument = None,
    ) -> None:
        """Do what is left of the iterations.

        Parameters
        ----------
        advance : callable
            Does the iteration of a number, and returns its loss.
        iterations : int
            In all, those of earlier runs included.
        snapshot : callable
            Gives the set as it is, for looks.
        looks : Looks, optional
        n_train, random_state, device
            Of :func:`ddkern.evaluate.evaluate` at looks.
        progress : bool or callable, optional
            Counts iterations.

        Raises
        ------
        ValueError
            If an earlier run has gone further, or a loss is not finite.
        BlockingIOError
            If another process is at work in the folder.
        """
        if self._kept:
            self._iteration = int(self._kept["iteration"])
            self._history = _History(**json.loads(self._kept["history"]))
            self._kept = {}
        if self._iteration > iterations:
            raise ValueError(
                f"iterations={iterations}, but {self._folder} has a run of {self._iteration}; it "
                "must be at least as many"
            )
        began, done_before = time.monotonic(), self._iteration
        show = report_progress(progress, self._name, "iterations")
        alone = contextlib.nullcontext() if self._folder is None else reserved(self._folder)
        with alone, self._stage() as detail, show as record:
            while self._iteration < iterations:
                loss = advance(self._iteration)
                self._average()
                self._history.losses.append(loss)
                self._iteration += 1
                detail["iterations"] = self._iteration
                is_last = self._iteration == iterations
                if looks is not None and (is_last or self._iteration % looks.every == 0):
                    found = evaluate(
                        snapshot(),
                        looks.test,
                        looks.protocol,
                        n_networks=looks.n_networks,
                        n_train=n_train,
                        random_state=random_state,
                        device=device,
                    )
                    self._history.looks.append(
                        {
                            "iteration": self._iteration,
                            "protocol": found.conditions["protocol"],
                            "accuracy": found.mean,
                        }
                    )
                    self._save()
                elif is_last or self._is_time_to_save():
                    self._save()
                if record is not None:
                    elapsed = time.monotonic() - began
                    # The rate of this run, as if all iterations had been done at it.
                    whole = elapsed * self._iteration / (self._iteration - done_before)
                    record(self._iteration, iterations, whole, self._note(loss))

    def _stage(self) -> AbstractContextManager[dict[str, Any]]:
        if self._folder is None:
            return contextlib.nullcontext({})
        return StageLog(self._folder).stage(self._name)

    def _average(self) -> None:
        for entry in self._learned.values():
            if entry.ema is not None:
                ema(entry.average, entry.value.detach(), decay=entry.ema, in_place=True)

    def _note(self, loss: float) -> str:
        note = f"loss {loss:.4g}"
        if self._history.looks:
            note += f", accuracy {100 * self._history.looks[-1]['accuracy']:.1f} %"
        return note

    def _is_time_to_save(self) -> bool:
        pause = time.monotonic() - self._saved_at
        return self._folder is not None and pause * _SHARE_OF_SAVING >= self._save_seconds

    def _save(self) -> None:
        if self._folder is None:
            return
        start = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        history = {"losses": self._history.losses, "looks": self._history.looks}
        state = {
            "conditions": self._digest,
            "iteration": self._iteration,
            "history": json.dumps(history),
            "learned": {
                name: {
                    "value": entry.value.detach(),
                    "optimizer": entry.optimizer.state_dict(),
                    "average": entry.average,
                }
                for name, entry in self._learned.items()
            },
        }
        with replaced_when_complete(self._folder / _STATE) as file:
            torch.save(state, file)
        with replaced_when_complete(self._folder / _HISTORY) as file:
            file.write((json.dumps(history, indent=1) + "\n").encode())
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - start


@dataclass(frozen=True, slots=True, eq=False)
class Learning:
    """A method that learns images, at work on a data set.

    Attributes
    ----------
    method : LearningMethod
    dataset : ImageDataset
    normalization : Normalization
    random_state : int
    device : torch.device
    synthesis : Synthesis
    images : Tensor of float32, shape (n_classes * ipc, channels, height, width)
        As networks take them, class after class.
    labels : Tensor of int64, shape (n_classes * ipc,)
    """

    method: LearningMethod
    dataset: ImageDataset
    normalization: Normalization
    random_state: int
    device: torch.device
    synthesis: Synthesis
    images: Tensor
    labels: Tensor

    @classmethod
    def begin(
        cls,
        method: LearningMethod,
        dataset: ImageDataset,
        normalization: Normalization,
        random_state: int,
        *,
        ema: float | None = None,
    ) -> Learning:
        """Images where they begin, or where the folder of the method says that they were."""
        device = choose_device(method.device)
        options = {name: value for name, value in method.options().items() if name != "iterations"}
        conditions = {
            "method": method.name,
            **options,
            "dataset_hash": dataset.fingerprint(),
            "normalization_hash": normalization.fingerprint(),
            "random_state": random_state,
        }
        synthesis = Synthesis(method.name, conditions, method.folder)
        first = _first_images(dataset, normalization, method.ipc, method.init, random_state)
        images = synthesis.learn(
            "images",
            torch.from_numpy(first).to(device),
            lr=method.lr_images,
            momentum=method.momentum,
            ema=ema,
        )
        labels = torch.arange(dataset.n_classes, device=device).repeat_interleave(method.ipc)
        return cls(method, dataset, normalization, random_state, device, synthesis, images, labels)

    def run(
        self,
        advance: Callable[[int], float],
        progress: ProgressArgument,
        student_lr: Callable[[], float] | None = None,
    ) -> DistilledSet:
        """Do the iterations, each by ``advance``, and make the set."""

        def snapshot() -> DistilledSet:
            rate = None if student_lr is None else student_lr()
            return DistilledSet(
                self.synthesis.result("images").cpu().numpy(),
                self.labels.cpu().numpy(),
                normalization=self.normalization,
                class_names=self.dataset.class_names,
                student_lr=rate if rate is not None and rate > 0 else None,
            )

        self.synthesis.run(
            advance,
            self.method.iterations,
            snapshot=snapshot,
            looks=self.method.looks,
            n_train=len(self.dataset),
            random_state=self.random_state,
            device=self.device,
            progress=progress,
        )
        return snapshot()
