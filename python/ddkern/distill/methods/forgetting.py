# SPDX-License-Identifier: Apache-2.0
"""Forgetting: images that networks unlearn most often while they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddkern.arrays import to_host
from ddkern.checks import as_count
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.distill.options import options_of
from ddkern.distill.selection import Choice, check_class_counts, select_by_class
from ddkern.progress import ProgressArgument

__all__ = ["Forgetting"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forgetting:
    """The images of each class with the highest forgetting scores.

    The score of an image is the number of times that it went from classified right to classified
    wrong between two of its presentations in training ([1]_, section 3); one that was never right
    counts as forgotten without end, infinity. Scores are given: any other measure of difficulty
    that is higher for the images to keep will do. The lowest row wins a tie, and a smaller set is
    the beginning of a larger one. Nothing is random.

    Attributes
    ----------
    ipc : int
        Images per class.
    scores : ndarray of float64, shape (n,)
        One for each row of the data set, infinity allowed, NaN not. The options record a digest.

    References
    ----------
    .. [1] M. Toneva, A. Sordoni, R. Tachet des Combes, A. Trischler, Y. Bengio and G. J. Gordon,
       "An empirical study of example forgetting during deep neural network learning", ICLR 2019,
       arXiv:1812.05159.
    """

    name: ClassVar[str] = "forgetting"

    ipc: int
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ipc", as_count("ipc", self.ipc))
        host = to_host(self.scores, "scores")
        if host.values.ndim != 1:
            raise ValueError(
                f"scores has shape {host.values.shape}; it must hold one number an image"
            )
        scores = np.array(host.as_dtype(np.float64))
        if np.isnan(scores).any():
            raise ValueError(
                f"scores[{int(np.argmax(np.isnan(scores)))}] is NaN; it must be a number"
            )
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)

    def options(self) -> dict[str, Any]:
        """All fields as plain values."""
        return options_of(self)

    def check(self, dataset: ImageDataset) -> None:
        """Raise ValueError if a class has fewer than ``ipc`` images, or scores do not fit."""
        check_class_counts(dataset, self.ipc)
        if len(self.scores) != len(dataset):
            raise ValueError(
                f"scores has shape {self.scores.shape}; it must hold one number for each of the "
                f"{len(dataset)} images of {dataset.name!r}"
            )

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

        def choose(label: int) -> Choice:
            scores = self.scores[dataset.rows_of_class(label)]
            return Choice(np.argsort(-scores, kind="stable")[: self.ipc])

        return select_by_class(
            dataset, choose, normalization=normalization, title=self.name, progress=progress
        )
