# SPDX-License-Identifier: Apache-2.0
"""DM: synthetic and real images of a class have the same mean feature, in random networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.distill.options import check_learning, default_augment, learning_options
from ddkern.distill.selection import check_class_counts
from ddkern.progress import ProgressArgument

if TYPE_CHECKING:
    from ddkern.augment import DSA
    from ddkern.distill.synthesis import Looks

__all__ = ["DM"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DM:
    """Dataset condensation with distribution matching (Zhao and Bilen, [1]_).

    Every iteration draws an untrained network, and goes one step of SGD down
    ``sum_c |mean f(A(real_c)) - mean f(A(synthetic_c))|^2``: the distance between the means of the
    features before the last layer, over a batch of real images and all synthetic ones of each
    class. Both get the same augmentation ``A`` ([1]_, equation 6).

    Published for ConvNet-D3 (E1-dsa): 26.0, 48.9 and 63.0 % on CIFAR-10 with 1, 10 and 50 images a
    class, 20,000 iterations.

    Attributes
    ----------
    ipc : int
        Images per class.
    model : str
        A name of :func:`ddkern.models.make_model`, with a method ``embed``.
    model_options : mapping
    iterations : int
        A finished run that has a ``folder`` can be continued with more.
    batch_size : int
        Real images of each class in an iteration.
    lr_images : float
        The paper takes 10 from 100 images a class on.
    momentum : float
    augment : DSA or None
    init : {"real", "k-means", "noise"}
        Images of the method ``random``, as in all published results; those of ``k-means`` on
        pixels; or normal noise.
    device : str
        "auto" takes a GPU where there is one.
    folder, looks
        As in :class:`ddkern.distill.MTT`.

    Raises
    ------
    TypeError, ValueError
        If a field breaks its rule.

    References
    ----------
    .. [1] B. Zhao and H. Bilen, "Dataset condensation with distribution matching", WACV 2023, and
       its code.
    """

    name: ClassVar[str] = "dm"

    ipc: int
    model: str = "convnet-d3"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    iterations: int = 20_000
    batch_size: int = 256
    lr_images: float = 1.0
    momentum: float = 0.5
    augment: DSA | None = field(default_factory=default_augment)
    init: str = "real"
    device: str = "auto"
    folder: Path | None = None
    looks: Looks | None = None

    def __post_init__(self) -> None:
        check_learning(self, counts=("ipc", "iterations", "batch_size"), rates=("lr_images",))

    def options(self) -> dict[str, Any]:
        """All that the result depends on, as plain values."""
        return learning_options(self)

    def check(self, dataset: ImageDataset) -> None:
        """Raise ValueError if a class has fewer than ``ipc`` images to begin with."""
        if self.init != "noise":
            check_class_counts(dataset, self.ipc)

    def distill(
        self,
        dataset: ImageDataset,
        *,
        normalization: Normalization,
        random_state: int,
        progress: ProgressArgument = None,
    ) -> DistilledSet:
        """Learn the set; :func:`ddkern.distill.distill` describes the arguments."""
        import torch

        from ddkern.augment import DrawKey
        from ddkern.distill.synthesis import Learning, RandomNetworks, RealImages, draws_of
        from ddkern.losses import mean_distance
        from ddkern.models import embed

        self.check(dataset)
        learning = Learning.begin(self, dataset, normalization, random_state)
        images, labels = learning.images, learning.labels
        real = RealImages(dataset, normalization, learning.device)
        networks = RandomNetworks(self.model, self.model_options, dataset, learning.device)

        def advance(iteration: int) -> float:
            draws = draws_of(random_state, iteration)
            network = networks.draw(draws)
            network.requires_grad_(False)
            features, real_features, real_labels = [], [], []
            for label in range(dataset.n_classes):
                batch, ours = real.draw(label, self.batch_size, draws), images[labels == label]
                if self.augment is not None:
                    key = DrawKey(random_state, iteration, label)
                    batch = self.augment(batch, key, siamese=True)
                    ours = self.augment(ours, key, siamese=True)
                with torch.no_grad():
                    real_features.append(embed(network, batch))
                real_labels.append(torch.full((len(batch),), label, device=learning.device))
                features.append(ours)
            loss = mean_distance(
                embed(network, torch.cat(features)),
                torch.cat(real_features),
                labels,
                torch.cat(real_labels),
                n_classes=dataset.n_classes,
            )
            return learning.synthesis.descend(loss)

        return learning.run(advance, progress)
