# SPDX-License-Identifier: Apache-2.0
"""D4M: prototypes of the latents of each class, diffused, denoised and decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count, check_choice
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.distill.latent_sets import (
    Codebook,
    check_dataset,
    distill_latents,
    normalize_options,
    shared_options,
)
from ddkern.kmeans import quantize
from ddkern.latents import Codec
from ddkern.optional import import_optional
from ddkern.progress import ProgressArgument

__all__ = ["D4M"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class D4M:
    """Dataset distillation via disentangled diffusion model (Su et al., [1]_).

    The steps of :class:`ddkern.distill.DDOQ` without the masses: every image counts the same. The
    paper clusters samples of the latent posterior by minibatch k-means with chunks of 10 images for
    each image to be made, and decodes with strength 0.7, guidance 8 and 50 steps of Stable
    Diffusion 1.5; give a codec that samples to do the former. Published for ImageNet-1K, ResNet-18:
    27.9, 55.2, 59.3 and 62.6 % at 10, 50, 100 and 200 images a class.

    Attributes
    ----------
    ipc : int
        Images per class.
    codec, strength, steps, guidance, teacher, folder
        As in :class:`ddkern.distill.DDOQ`.
    clustering : {"minibatch", "lloyd"}
        ``"minibatch"`` is scikit-learn's ``MiniBatchKMeans.partial_fit`` on one chunk of a class
        after another, which is what D4M does; the images that are left over at the end of a class
        are a smaller chunk here, while the published code drops them for every class but the last.
        ``"lloyd"`` is :func:`ddkern.quantize`.
    chunk_per_image : int
        Images of a chunk of ``"minibatch"`` for each image to be made.

    References
    ----------
    .. [1] D. Su, J. Hou, W. Gao, Y. Tian and B. Tang, "D4M: Dataset distillation via disentangled
       diffusion model", CVPR 2024, arXiv:2407.15138.
    """

    name: ClassVar[str] = "d4m"

    ipc: int
    codec: Codec
    strength: float | None = None
    steps: int | None = None
    guidance: float | None = None
    teacher: Any = None
    clustering: Literal["minibatch", "lloyd"] = "minibatch"
    chunk_per_image: int = 10
    folder: Path | None = None

    def __post_init__(self) -> None:
        check_choice("clustering", self.clustering, ("minibatch", "lloyd"))
        chunk = as_count("chunk_per_image", self.chunk_per_image)
        object.__setattr__(self, "chunk_per_image", chunk)
        normalize_options(self)

    def options(self) -> dict[str, Any]:
        """All that the result depends on, as plain values."""
        return {
            **shared_options(self),
            "clustering": self.clustering,
            "chunk_per_image": self.chunk_per_image,
        }

    def check(self, dataset: ImageDataset) -> None:
        """Raise ValueError if a class has fewer than ``ipc`` images, or the codec does not fit."""
        check_dataset(self, dataset)
        if self.clustering == "minibatch":
            import_optional("sklearn.cluster", "clustering='minibatch'", "sklearn")

    def distill(
        self,
        dataset: ImageDataset,
        *,
        normalization: Normalization,
        random_state: int,
        progress: ProgressArgument = None,
    ) -> DistilledSet:
        """Make the set; :func:`ddkern.distill.distill` describes the arguments."""

        def make(latents: NDArray[np.float32]) -> Codebook:
            if self.clustering == "minibatch":
                return self._cluster_by_minibatches(latents, dataset, random_state)
            quantized = quantize(
                latents,
                self.ipc,
                groups=dataset.labels,
                random_state=random_state,
                progress=progress,
            )
            return Codebook.sorted_by_mass(quantized.centroids, quantized.weights, quantized.groups)

        return distill_latents(
            self,
            dataset,
            make,
            weighted=False,
            normalization=normalization,
            random_state=random_state,
            progress=progress,
        )

    def _cluster_by_minibatches(
        self, latents: NDArray[np.float32], dataset: ImageDataset, random_state: int
    ) -> Codebook:
        from sklearn.cluster import MiniBatchKMeans

        centroids, masses = [], []
        chunk = self.chunk_per_image * self.ipc
        for label in range(dataset.n_classes):
            members = dataset.rows_of_class(label)
            draws = np.random.Generator(np.random.Philox(key=[random_state, label]))
            seed = int(draws.integers(1 << 32))
            clusters = MiniBatchKMeans(n_clusters=self.ipc, random_state=seed, n_init="auto")
            for start in range(0, len(members), chunk):
                part = np.asarray(latents[members[start : start + chunk]])
                clusters.partial_fit(part.reshape(len(part), -1))
            found = clusters.cluster_centers_.astype(np.float32)
            centroids.append(found.reshape(self.ipc, *latents.shape[1:]))
            # What the clusters counted while they moved: for the order alone, as D4M has no masses.
            counts = np.asarray(clusters._counts, np.float64)
            masses.append(counts / counts.sum())
        labels = np.repeat(np.arange(dataset.n_classes, dtype=np.int64), self.ipc)
        return Codebook.sorted_by_mass(np.concatenate(centroids), np.concatenate(masses), labels)
