# SPDX-License-Identifier: Apache-2.0
"""k-center: images that leave none of their class far away."""

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

__all__ = ["KCenter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KCenter:
    """Images chosen farthest first: each the one farthest from all that were chosen before.

    This is the greedy algorithm for the k-center problem ([1]_; [2]_, algorithm 1), whose largest
    distance is at most twice the optimal one from any first centre. Here the first centre is the
    image nearest to the mean of the class, so that nothing is random; [2]_ starts from labelled
    images. Distances are compared in float64, and the lowest row wins a tie. A smaller set is the
    beginning of a larger one.

    Attributes
    ----------
    ipc : int
        Images per class.
    features : FeatureSpace
        The space of the distances; [2]_ takes a trained network.

    References
    ----------
    .. [1] T. F. Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical
       Computer Science 38, 1985.
    .. [2] O. Sener and S. Savarese, "Active learning for convolutional neural networks: a core-set
       approach", ICLR 2018, arXiv:1708.00489.
    """

    name: ClassVar[str] = "k-center"

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
            lambda features, _: Choice(_farthest_first(features, self.ipc)),
            normalization=normalization,
            title=self.name,
            progress=progress,
        )


def _farthest_first(features: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    mean = features.mean(axis=0, dtype=np.float64)
    _, from_mean = assign(features, mean[None], return_distance=True)
    chosen = np.empty(count, np.int64)
    chosen[0] = np.argmin(from_mean)
    closest = np.full(len(features), np.inf)
    for step in range(1, count):
        newest = chosen[step - 1]
        _, distance = assign(features, features[newest, None], return_distance=True)
        np.minimum(closest, distance, out=closest)
        # Equal images are at distance 0 too, and may be all that is left.
        closest[newest] = -np.inf
        chosen[step] = np.argmax(closest)
    return chosen
