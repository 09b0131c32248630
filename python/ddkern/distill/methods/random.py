# SPDX-License-Identifier: Apache-2.0
"""Random images: what every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ddkern.checks import as_count
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.distill.options import options_of
from ddkern.distill.selection import (
    Choice,
    check_class_counts,
    random_members,
    select_by_class,
)
from ddkern.progress import ProgressArgument

__all__ = ["Random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Images of each class drawn at random, without replacement.

    The images of a class are put in the order of random numbers, 64 bits each from Philox under
    ``SeedSequence(random_state, spawn_key=(label,))``, and the first ones are taken. numpy keeps
    these streams the same in all of its versions. So the draw of a class depends on the seed, the
    label and the number of its images alone, and a smaller set is the beginning of a larger one.

    Attributes
    ----------
    ipc : int
        Images per class.
    """

    name: ClassVar[str] = "random"

    ipc: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "ipc", as_count("ipc", self.ipc))

    def options(self) -> dict[str, Any]:
        """All fields as plain values."""
        return options_of(self)

    def check(self, dataset: ImageDataset) -> None:
        """Raise ValueError if a class has fewer than ``ipc`` images."""
        check_class_counts(dataset, self.ipc)

    def distill(
        self,
        dataset: ImageDataset,
        *,
        normalization: Normalization,
        random_state: int,
        progress: ProgressArgument = None,
    ) -> DistilledSet:
        """Choose the images; :func:`ddkern.distill.distill` describes the arguments."""
        self.check(dataset)
        counts = dataset.class_counts

        def choose(label: int) -> Choice:
            return Choice(random_members(int(counts[label]), self.ipc, random_state, label))

        return select_by_class(
            dataset, choose, normalization=normalization, title=self.name, progress=progress
        )
