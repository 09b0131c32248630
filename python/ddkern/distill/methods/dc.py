# SPDX-License-Identifier: Apache-2.0
"""DC and DSA: synthetic and real images of a class pull a network in the same direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from ddkern.checks import check_choice
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.distill.options import check_learning, learning_options
from ddkern.distill.selection import check_class_counts
from ddkern.progress import ProgressArgument

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from ddkern.augment import DSA
    from ddkern.distill.synthesis import Looks
    from ddkern.losses import GradientMetric

__all__ = ["DC"]

# Outer and inner loops of the authors' code, by images a class.
_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DC:
    """Dataset condensation with gradient matching [1]_; with augmentation, DSA [2]_.

    Every iteration draws an untrained network. ``outer_loop`` times, images take a step of SGD
    down ``sum_c D(grad loss(A(real_c)), grad loss(A(synthetic_c)))``, where D adds one minus the
    cosine over all rows of all layers' gradients ([1]_, equation 10), and the network is trained on
    the set for ``inner_loop`` epochs in between. With ``augment`` both sides get the same
    augmentation A ([2]_, equation 4).

    Published for ConvNet-D3 on CIFAR-10 with 1, 10 and 50 images a class: DC 28.3, 44.9 and 53.9 %
    (E1-dc), DSA 28.8, 52.1 and 60.6 % (E1-dsa), 1000 iterations.

    Attributes
    ----------
    ipc : int
        Images per class.
    model : str
        A name of :func:`ddkern.models.make_model`.
    model_options : mapping
    iterations : int
        A finished run that has a ``folder`` can be continued with more.
    outer_loop, inner_loop : int or None
        None takes those of the authors' code for ``ipc``: 1 and 1 for 1 image a class, 10 and 50
        for 10, 50 and 10 for 50.
    batch_size : int
        Real images of each class in a step, and images of the set in a step of the network.
    lr_images, momentum : float
        Of the images.
    lr_network : float
        Of the network, whose SGD has momentum 0.5.
    metric : str
        As in :func:`ddkern.losses.gradient_distance`.
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
        If a field breaks its rule, or there are no loops for ``ipc``.

    References
    ----------
    .. [1] B. Zhao et al., "Dataset condensation with gradient matching", ICLR 2021, and its code.
    .. [2] B. Zhao and H. Bilen, "Dataset condensation with differentiable Siamese augmentation",
       ICML 2021, and its code.
    """

    name: ClassVar[str] = "dc"

    ipc: int
    model: str = "convnet-d3"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    iterations: int = 1000
    outer_loop: int | None = None
    inner_loop: int | None = None
    batch_size: int = 256
    lr_images: float = 0.1
    momentum: float = 0.5
    lr_network: float = 0.01
    metric: GradientMetric = "cosine"
    augment: DSA | None = None
    init: str = "real"
    device: str = "auto"
    folder: Path | None = None
    looks: Looks | None = None

    def __post_init__(self) -> None:
        if None in (self.outer_loop, self.inner_loop):
            if self.ipc not in _LOOPS:
                raise ValueError(
                    f"ipc={self.ipc} has no published loops; outer_loop and inner_loop must be "
                    "given"
                )
            for name, count in zip(("outer_loop", "inner_loop"), _LOOPS[self.ipc], strict=True):
                if getattr(self, name) is None:
                    object.__setattr__(self, name, count)
        from typing import get_args

        from ddkern.losses import GradientMetric

        check_choice("metric", self.metric, get_args(GradientMetric))
        counts = ("ipc", "iterations", "outer_loop", "inner_loop", "batch_size")
        check_learning(self, counts=counts, rates=("lr_images", "lr_network"))

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

        from ddkern.distill.synthesis import Learning, RandomNetworks, RealImages, draws_of

        self.check(dataset)
        learning = Learning.begin(self, dataset, normalization, random_state)
        images, labels = learning.images, learning.labels
        real = RealImages(dataset, normalization, learning.device)
        networks = RandomNetworks(self.model, self.model_options, dataset, learning.device)

        # __post_init__ has put numbers in the place of None.
        outer, inner = cast(int, self.outer_loop), cast(int, self.inner_loop)

        def advance(iteration: int) -> float:
            draws = draws_of(random_state, iteration)
            network = networks.draw(draws)
            optimizer = torch.optim.SGD(network.parameters(), self.lr_network, momentum=0.5)
            total, step = 0.0, 0
            for loop in range(outer):
                loss = torch.zeros((), device=learning.device)
                for label in range(dataset.n_classes):
                    batch = real.draw(label, self.batch_size, draws)
                    key = (random_state, iteration, step)
                    loss = loss + self._distance(
                        network, batch, images[labels == label], label, key
                    )
                    step += 1
                total += learning.synthesis.descend(loss)
                if loop + 1 < outer:
                    for _ in range(inner):
                        key = (random_state, iteration, step)
                        self._train(network, optimizer, images.detach(), labels, key, draws)
                        step += 1
            return total / outer

        return learning.run(advance, progress)

    def _distance(
        self, network: nn.Module, real: Tensor, ours: Tensor, label: int, key: tuple[int, int, int]
    ) -> Tensor:
        """Between the gradients of the loss of both batches of a class."""
        import torch

        from ddkern.augment import DrawKey
        from ddkern.losses import gradient_distance

        if self.augment is not None:
            real = self.augment(real, DrawKey(*key), siamese=True)
            ours = self.augment(ours, DrawKey(*key), siamese=True)
        parameters = list(network.parameters())

        def gradient(batch: Tensor, *, create_graph: bool) -> list[Tensor]:
            targets = torch.full((len(batch),), label, device=batch.device)
            loss = torch.nn.functional.cross_entropy(network(batch), targets)
            return list(torch.autograd.grad(loss, parameters, create_graph=create_graph))

        return gradient_distance(
            gradient(ours, create_graph=True),
            gradient(real, create_graph=False),
            metric=self.metric,
        )

    def _train(
        self,
        network: nn.Module,
        optimizer: optim.Optimizer,
        images: Tensor,
        labels: Tensor,
        key: tuple[int, int, int],
        draws: np.random.Generator,
    ) -> None:
        """One epoch of the network on the set."""
        import torch

        from ddkern.augment import DrawKey

        order = torch.from_numpy(draws.permutation(len(images))).to(images.device)
        for rows in torch.split(order, self.batch_size):
            inputs = images[rows]
            if self.augment is not None:
                inputs = self.augment(inputs, DrawKey(*key))
            loss = torch.nn.functional.cross_entropy(network(inputs), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
