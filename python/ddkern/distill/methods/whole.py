# SPDX-License-Identifier: Apache-2.0
"""The whole data set, which is the upper line of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.distill.options import options_of
from ddkern.distill.selection import Choice, select_by_class
from ddkern.progress import ProgressArgument

__all__ = ["Whole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """All images, class after class: what any smaller set is compared with."""

    name: ClassVar[str] = "whole"

    def options(self) -> dict[str, Any]:
        """There are none."""
        return options_of(self)

    def check(self, dataset: ImageDataset) -> None:
        """Every data set will do."""

    def distill(
        self,
        dataset: ImageDataset,
        *,
        normalization: Normalization,
        random_state: int,
        progress: ProgressArgument = None,
    ) -> DistilledSet:
        """Take the images; :func:`ddkern.distill.distill` describes the arguments."""
        counts = dataset.class_counts
        return select_by_class(
            dataset,
            lambda label: Choice(np.arange(counts[label])),
            normalization=normalization,
            title=self.name,
            progress=progress,
        )
