# SPDX-License-Identifier: Apache-2.0
"""Herding: images whose mean follows the mean of their class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.distill.features import FeatureSpace, PixelFeatures, check_features
from ddkern.distill.options import options_of
from ddkern.distill.selection import Choice, check_class_counts, select_by_features
from ddkern.kmeans import assign
from ddkern.progress import ProgressArgument

__all__ = ["Herding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Herding:
    """Images chosen one by one, each the one that brings their mean nearest to the class mean.

    With features ``f_i`` of mean ``mu`` and ``t - 1`` images of sum ``s`` chosen, the next one
    minimises ``|mu - (s + f_i) / t|`` over the images that are left ([2]_, algorithm 4); distances
    are compared in float64, and the lowest row wins a tie. A smaller set is the beginning of a
    larger one. Nothing is random.

    Attributes
    ----------
    ipc : int
        Images per class.
    features : FeatureSpace
        The space of the means; [2]_ takes a trained network.

    References
    ----------
    .. [1] M. Welling, "Herding dynamical weights to learn", ICML 2009.
    .. [2] S.-A. Rebuffi, A. Kolesnikov, G. Sperl and C. H. Lampert, "iCaRL: incremental classifier
       and representation learning", CVPR 2017, arXiv:1611.07725. It lets an image be chosen again;
       here none is.
    """

    name: ClassVar[str] = "herding"

    ipc: int
    features: FeatureSpace = field(default_factory=PixelFeatures)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ipc", as_count("ipc", self.ipc))
        check_features(self.features)

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
        return select_by_features(
            dataset,
            self.features,
            lambda features, _: Choice(_herd(features, self.ipc)),
            normalization=normalization,
            title=self.name,
            progress=progress,
        )


def _herd(features: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    # Widened once: assign would widen them at every step, to compare them with a float64 target.
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    total = np.zeros_like(mean)
    left = np.ones(len(wide), bool)
    chosen = np.empty(count, np.int64)
    for t in range(1, count + 1):
        # t |mu - (s + f) / t| = |(t mu - s) - f|: the next image is the nearest to this target.
        target = t * mean - total
        _, distance = assign(wide, target[None], return_distance=True)
        chosen[t - 1] = np.argmin(np.where(left, distance, np.inf))
        left[chosen[t - 1]] = False
        total += wide[chosen[t - 1]]
    return chosen
