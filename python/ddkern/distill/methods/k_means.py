# SPDX-License-Identifier: Apache-2.0
"""k-means: the real images nearest to the centroids of a class, with the masses of the cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.distill.features import FeatureSpace, PixelFeatures, check_features
from ddkern.distill.options import options_of
from ddkern.distill.selection import (
    Choice,
    check_class_counts,
    nearest_to_centroids,
    select_by_features,
)
from ddkern.progress import ProgressArgument

__all__ = ["KMeansNearest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KMeansNearest:
    """The real images nearest to the centroids of each class, weighted by the masses of the cells.

    Each class is quantized by :func:`ddkern.quantize` with ``ipc`` centroids, with its label as
    the id of its group: what is chosen from a class does not depend on the others, except through
    the feature space. Cells take their images in the order of falling mass, of two equal ones the
    one of lower index first; each takes the image of the class nearest to its centroid that no cell
    has taken, of two equally near ones the lower row. Images stand in this order.

    ``sample_weight`` is the share of the class in the cell, times ``ipc``: the mean in every class
    is 1. The centroids with these masses are the measure on ``ipc`` points nearest to the class in
    the 2-Wasserstein distance, up to Lloyd's local optimum; equal masses make that distance larger
    ([1]_, section 3, where the points are latents that a diffusion model decodes). A cell of mass
    0, which only a class with fewer different images than ``ipc`` has, gives an image of weight 0.

    Attributes
    ----------
    ipc : int
        Images per class.
    features : FeatureSpace
        The space that is quantized.
    n_init, max_iter : int
        As in :func:`ddkern.quantize`.

    References
    ----------
    .. [1] H. Y. Tan and E. Slade, "Dataset distillation as pushforward optimal quantization",
       arXiv:2501.07681, 2025.
    """

    name: ClassVar[str] = "k-means"

    ipc: int
    features: FeatureSpace = field(default_factory=PixelFeatures)
    n_init: int = 1
    max_iter: int = 300

    def __post_init__(self) -> None:
        for name in ("ipc", "n_init", "max_iter"):
            object.__setattr__(self, name, as_count(name, getattr(self, name)))
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

        def choose(features: NDArray[np.float32], label: int) -> Choice:
            return nearest_to_centroids(
                features,
                label,
                ipc=self.ipc,
                n_init=self.n_init,
                max_iter=self.max_iter,
                random_state=random_state,
            )

        return select_by_features(
            dataset,
            self.features,
            choose,
            normalization=normalization,
            title=self.name,
            progress=progress,
        )
