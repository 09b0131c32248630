# SPDX-License-Identifier: Apache-2.0
"""DDOQ: the latents of each class are quantized, and what the centroids decode to is weighted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count
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
from ddkern.progress import ProgressArgument

__all__ = ["DDOQ"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DDOQ:
    """Dataset distillation by optimal quantization of latents (Tan and Slade, [1]_).

    1. Every image is encoded, ``z = E(x)``.
    2. The latents of each class c are quantized by ``ipc`` centroids: of all measures on ``ipc``
       points, ``sum_k w_k delta(z_k)`` with the masses ``w_k`` of the cells is nearest to the
       latents of the class in the 2-Wasserstein distance, up to Lloyd's local optimum ([1]_,
       section 3). All classes are one ragged call of :func:`ddkern.quantize`.
    3. Each centroid is diffused and denoised given its class, and decoded, ``x_k = D(z_k; c)``.
    4. Images get logits of a teacher as soft labels, where one is given.
    5. Students minimise ``sum_k w_k loss(x_k, y_k)``: ``sample_weight`` is ``w_k`` times ``ipc``,
       so that its mean is 1 in every class; which function of it the loss takes is chosen by
       ``weights`` of :func:`ddkern.evaluate.evaluate` (``"density"``, ``"sqrt"``, ``"uniform"``),
       since the paper leaves the map uncertain.

    [1]_ follows D4M in strength 0.7, guidance 8 and 50 steps with Stable Diffusion 1.5; a codec
    brings such values along. Published for ImageNet-1K, ResNet-18: 33.1, 56.2, 60.1 and 63.4 % at
    10, 50, 100 and 200 images a class.

    Attributes
    ----------
    ipc : int
        Images per class.
    codec : Codec
        Such as :func:`ddkern.latents.load_codec` returns. Latent means are quantized unless the
        codec draws samples.
    strength, steps, guidance
        As in :meth:`ddkern.latents.Codec.decode`; None is the codec's own value.
    teacher : nn.Module or None
        Labels the images, for inputs of the normalization that the set gets.
    n_init, max_iter : int
        As in :func:`ddkern.quantize`.
    folder : path-like or None
        Keeps latents, centroids, decoded images, seconds of every stage (``stages``), what the
        quantization is worth (``measures.json``) and the real image nearest to each centroid
        (``nearest_real.npy``). A second run goes on from there. Several processes that
        ``torchrun`` started share the work and need it.

    References
    ----------
    .. [1] H. Y. Tan and E. Slade, "Dataset distillation as pushforward optimal quantization",
       arXiv:2501.07681, 2025.
    """

    name: ClassVar[str] = "ddoq"

    ipc: int
    codec: Codec
    strength: float | None = None
    steps: int | None = None
    guidance: float | None = None
    teacher: Any = None
    n_init: int = 1
    max_iter: int = 300
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name in ("n_init", "max_iter"):
            object.__setattr__(self, name, as_count(name, getattr(self, name)))
        normalize_options(self)

    def options(self) -> dict[str, Any]:
        """All that the result depends on, as plain values."""
        return {**shared_options(self), "n_init": self.n_init, "max_iter": self.max_iter}

    def check(self, dataset: ImageDataset) -> None:
        """Raise ValueError if a class has fewer than ``ipc`` images, or the codec does not fit."""
        check_dataset(self, dataset)

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
            quantized = quantize(
                latents,
                self.ipc,
                groups=dataset.labels,
                n_init=self.n_init,
                max_iter=self.max_iter,
                random_state=random_state,
                progress=progress,
            )
            return Codebook.sorted_by_mass(quantized.centroids, quantized.weights, quantized.groups)

        return distill_latents(
            self,
            dataset,
            make,
            weighted=True,
            normalization=normalization,
            random_state=random_state,
            progress=progress,
        )
