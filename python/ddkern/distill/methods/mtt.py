# SPDX-License-Identifier: Apache-2.0
"""MTT: students that learn the set for some steps end where experts came with the real images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ddkern.checks import as_count, as_fraction
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.distill.options import check_learning, default_augment, learning_options
from ddkern.distill.selection import check_class_counts
from ddkern.progress import ProgressArgument

if TYPE_CHECKING:
    from ddkern.augment import DSA
    from ddkern.distill.synthesis import Looks
    from ddkern.experts import ExpertBuffer

__all__ = ["MTT"]

# The settings of MTT's code: student_steps, expert_epochs, max_start_epoch, lr_images,
# lr_student_lr, student_lr, batch_size, and whether ZCA whitens the images.
_PUBLISHED: dict[tuple[str, int], tuple[int, int, int, float, float, float, int | None, bool]] = {
    ("cifar10", 1): (50, 2, 2, 100, 1e-7, 0.01, None, True),
    ("cifar10", 10): (30, 2, 20, 100, 1e-5, 0.001, None, True),
    ("cifar10", 50): (30, 2, 40, 1000, 1e-5, 0.001, None, False),
    ("cifar100", 1): (20, 3, 20, 1000, 1e-5, 0.01, None, True),
    ("cifar100", 10): (20, 2, 20, 1000, 1e-5, 0.01, None, False),
    ("cifar100", 50): (80, 2, 40, 1000, 1e-5, 0.01, 125, True),
    ("tiny-imagenet", 1): (10, 2, 10, 1e4, 1e-4, 0.01, None, False),
    ("tiny-imagenet", 10): (20, 2, 40, 1e4, 1e-4, 0.01, 200, False),
    ("tiny-imagenet", 50): (20, 2, 40, 1e4, 1e-4, 0.01, 300, False),
    ("imagenet-subset", 1): (20, 2, 10, 1000, 1e-6, 0.01, None, False),
}

_COUNTS = (
    "ipc",
    "iterations",
    "student_steps",
    "expert_epochs",
    "max_start_epoch",
    "students",
    "batch_size",
    "micro_batch",
    "at_once",
)
_RATES = ("student_lr", "lr_images", "lr_student_lr")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MTT:
    """Dataset distillation by matching training trajectories (Cazenavette et al., [1]_).

    In every iteration:

    1. An expert and an epoch ``s`` before ``max_start_epoch`` are drawn. The student starts from
       the expert's parameters ``theta*_s``.
    2. It takes ``student_steps`` steps of SGD on batches of the set, augmented by DSA, at the
       learned rate.
    3. The loss is ``|theta_T - theta*_{s+M}|^2 / |theta*_s - theta*_{s+M}|^2`` with M =
       ``expert_epochs`` ([1]_, equation 2), of several ``students`` the mean. Images and rate take
       a step of SGD down its gradient, which is exact and comes back one step at a time
       (:class:`ddkern.distill.Unroll`).

    Published for ConvNet-D3, 100 experts and 5000 iterations (E1-dsa with ZCA, best of all tests):
    46.2, 65.4 and 71.6 % on CIFAR-10, and 24.3, 39.7 and 47.7 % on CIFAR-100, with 1, 10 and 50
    images a class. :meth:`published` gives the settings.

    Attributes
    ----------
    ipc : int
        Images per class.
    experts : ExpertBuffer
        Trained on the same data under the same normalization; see
        :func:`ddkern.experts.train_experts`.
    iterations : int
        A finished run that has a ``folder`` can be continued with more.
    student_steps, expert_epochs : int
        Steps of the student, and epochs of the expert that they stand for.
    max_start_epoch, min_start_epoch : int
        Starts are drawn from ``min_start_epoch <= s < max_start_epoch``. MTT begins at 0; for many
        images a class later epochs have more to tell ([2]_).
    students : int
        Starts of an iteration, each of an expert and an epoch that are drawn. They take the same
        batches with the same augmentation, and the loss is the mean of their distances. 1 in all
        published results.
    batch_size : int or None
        Images that a step takes; None is all. Batches go through permutations of the set.
    student_lr : float
        Learning rate of the students at the beginning; it is learned along.
    lr_images, lr_student_lr : float
        Learning rates of the images and of the student's learning rate.
    momentum : float
        Of both.
    positive_lr : bool
        Whether an update may at most halve the student's learning rate, so that it stays above 0,
        which MTT's own does not always. A rate that is not above 0 at the end is not part of the
        set.
    augment : DSA or None
        Of the set, in every step.
    init : {"real", "k-means", "noise"}
        Images of the method ``random``, as in all published results; those of ``k-means`` on
        pixels; or normal noise.
    ema : float or None
        Decay of an average over iterations, which becomes the set (as in FTD).
    gradient, micro_batch, store_every, at_once, precision, compiled
        As in :class:`ddkern.distill.Unroll`.
    device : str
        "auto" takes a GPU where there is one.
    folder : path-like or None
        Keeps ``synthesis.pt``, from which a second run goes on, and ``history.json``, the losses
        and looks.
    looks : Looks or None
        Tests the set every so many iterations.

    Raises
    ------
    TypeError, ValueError
        If a field breaks its rule, or the buffer has fewer epochs than are asked for.

    References
    ----------
    .. [1] G. Cazenavette et al., "Dataset distillation by matching training trajectories", CVPR
       2022, and its code.
    .. [2] Z. Guo et al., "Towards lossless dataset distillation via difficulty-aligned trajectory
       matching", ICLR 2024.
    """

    name: ClassVar[str] = "mtt"

    ipc: int
    experts: ExpertBuffer
    iterations: int = 5000
    student_steps: int = 30
    expert_epochs: int = 2
    max_start_epoch: int = 20
    min_start_epoch: int = 0
    students: int = 1
    batch_size: int | None = None
    student_lr: float = 0.01
    lr_images: float = 100.0
    lr_student_lr: float = 1e-5
    momentum: float = 0.5
    positive_lr: bool = True
    augment: DSA | None = field(default_factory=default_augment)
    init: str = "real"
    ema: float | None = None
    gradient: str = "exact"
    micro_batch: int | None = None
    store_every: int = 1
    at_once: int = 1
    precision: str = "float32"
    compiled: bool = False
    device: str = "auto"
    folder: Path | None = None
    looks: Looks | None = None

    def __post_init__(self) -> None:
        from ddkern.experts import ExpertBuffer

        if not isinstance(self.experts, ExpertBuffer):
            raise TypeError(
                f"experts is a {type(self.experts).__name__}; it must be an ExpertBuffer"
            )
        if not len(self.experts):
            raise ValueError(f"experts={self.experts!r} has none that is complete")
        check_learning(self, counts=_COUNTS, rates=_RATES)
        if self.ema is not None:
            object.__setattr__(self, "ema", as_fraction("ema", self.ema))
        if self.student_lr == 0:
            raise ValueError("student_lr=0; it must be above 0")
        first = as_count("min_start_epoch", self.min_start_epoch, at_least=0)
        if first >= self.max_start_epoch:
            raise ValueError(
                f"min_start_epoch={first}; it must be below max_start_epoch={self.max_start_epoch}"
            )
        for name in ("positive_lr", "compiled"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}={getattr(self, name)!r}; it must be true or false")
        last = self.max_start_epoch - 1 + self.expert_epochs
        if last >= self.experts.n_checkpoints:
            raise ValueError(
                f"max_start_epoch={self.max_start_epoch} and expert_epochs={self.expert_epochs} "
                f"reach epoch {last}, but the experts were trained for "
                f"{self.experts.n_checkpoints - 1}"
            )

    @classmethod
    def published(cls, dataset: str, ipc: int, experts: ExpertBuffer, **changes: Any) -> MTT:
        """With the settings of the paper's code for a data set and a number of images.

        Parameters
        ----------
        dataset : {"cifar10", "cifar100", "tiny-imagenet", "imagenet-subset"}
        ipc : int
            1, 10 or 50; 1 for the last one.
        experts : ExpertBuffer
        **changes
            Fields that are to be different.

        Raises
        ------
        ValueError
            If there are no such settings.

        Notes
        -----
        Whether the images are whitened (:meth:`published_zca`) is decided when the experts are
        trained.
        """
        steps, epochs, start, lr_images, lr_lr, lr, batch, _ = _settings(dataset, ipc)
        options = {
            "student_steps": steps,
            "expert_epochs": epochs,
            "max_start_epoch": start,
            "lr_images": lr_images,
            "lr_student_lr": lr_lr,
            "student_lr": lr,
            "batch_size": batch,
        }
        return cls(ipc=ipc, experts=experts, **(options | changes))

    @staticmethod
    def published_zca(dataset: str, ipc: int) -> bool:
        """Whether the published settings whiten the images (:meth:`Normalization.fit`)."""
        return _settings(dataset, ipc)[-1]

    def options(self) -> dict[str, Any]:
        """All that the result depends on, as plain values."""
        experts = {
            **self.experts.conditions,
            "numbers": list(self.experts.numbers),
            "n_checkpoints": self.experts.n_checkpoints,
        }
        return {**learning_options(self), "experts": experts}

    def check(self, dataset: ImageDataset) -> None:
        """Raise ValueError if the experts are for other images, or a class has too few."""
        conditions = self.experts.conditions
        for name, found in (
            ("n_classes", dataset.n_classes),
            ("in_channels", dataset.image_shape[0]),
            ("image_size", list(dataset.image_shape[1:])),
        ):
            if conditions[name] != found:
                raise ValueError(
                    f"experts were trained for {name}={conditions[name]}, but {dataset.name!r} has "
                    f"{found}"
                )
        if self.init != "noise":
            check_class_counts(dataset, self.ipc)
        n = self.ipc * dataset.n_classes
        if self.batch_size is not None and self.batch_size > n:
            raise ValueError(f"batch_size={self.batch_size}; the set has {n} images")

    def distill(
        self,
        dataset: ImageDataset,
        *,
        normalization: Normalization,
        random_state: int,
        progress: ProgressArgument = None,
    ) -> DistilledSet:
        """Learn the set; :func:`ddkern.distill.distill` describes the arguments.

        Raises
        ------
        ValueError
            If the experts were trained on other images or under another normalization, or a loss
            is not finite.
        """
        import torch

        from ddkern.distill.synthesis import Learning, augment_steps, draws_of
        from ddkern.distill.unroll import Unroll
        from ddkern.models import FlatNetwork

        self.check(dataset)
        self._check_experts(dataset, normalization)
        learning = Learning.begin(self, dataset, normalization, random_state, ema=self.ema)
        images, device = learning.images, learning.device
        network = FlatNetwork(self.experts.network().to(device))
        rate = learning.synthesis.learn(
            "student_lr",
            torch.tensor(self.student_lr, device=device),
            lr=self.lr_student_lr,
            momentum=self.momentum,
        )
        shared = {
            "model": network,
            "gradient": self.gradient,
            "micro_batch": self.micro_batch,
            "store_every": self.store_every,
            "at_once": self.at_once,
            "precision": self.precision,
            "compiled": self.compiled,
        }

        def advance(iteration: int) -> float:
            draws = draws_of(random_state, iteration)
            begins = [
                (
                    self.experts.numbers[draws.integers(len(self.experts))],
                    int(draws.integers(self.min_start_epoch, self.max_start_epoch)),
                )
                for _ in range(self.students)
            ]
            unroll = Unroll(
                batches=[
                    torch.from_numpy(rows).to(device)
                    for rows in _batches(len(images), self.batch_size, self.student_steps, draws)
                ],
                augment=augment_steps(self.augment, random_state, iteration),
                **shared,  # type: ignore[arg-type]
            )
            starts, targets = (
                torch.stack([self.experts.parameters(n, epoch + later) for n, epoch in begins])
                for later in (0, self.expert_epochs)
            )
            distances = unroll.distance(
                starts.to(device), targets.to(device), images, learning.labels, rate
            )
            before = rate.detach().clone()
            value = learning.synthesis.descend(distances.mean())
            if self.positive_lr:
                with torch.no_grad():
                    rate.clamp_(min=float(before) / 2)
            return value

        return learning.run(advance, progress, lambda: float(rate.detach()))

    def _check_experts(self, dataset: ImageDataset, normalization: Normalization) -> None:
        """Buffers of other programs do not say what they were trained on."""
        conditions = self.experts.conditions
        source_hash = dataset.fingerprint()
        if conditions.get("dataset_hash", source_hash) != source_hash:
            raise ValueError(
                f"experts were trained on other images ({conditions.get('dataset')!r}) than these"
            )
        found = normalization.fingerprint()
        if conditions.get("normalization_hash", found) != found:
            raise ValueError(
                "experts were trained under another normalization than the one given; both must be "
                "the same"
            )


def _settings(
    dataset: str, ipc: int
) -> tuple[int, int, int, float, float, float, int | None, bool]:
    if (dataset, ipc) not in _PUBLISHED:
        known = ", ".join(f"{name} with {count}" for name, count in _PUBLISHED)
        raise ValueError(
            f"dataset={dataset!r} with ipc={ipc} has no published settings; there are some for "
            f"{known}"
        )
    return _PUBLISHED[dataset, ipc]


def _batches(
    n: int, batch_size: int | None, steps: int, draws: np.random.Generator
) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Rows of each step: permutations of the set, cut into batches and joined as needed."""
    size = n if batch_size is None else batch_size
    found: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    while len(found) < steps:
        order = draws.permutation(n)
        found += [order[first : first + size] for first in range(0, n, size)]
    return found[:steps]
