# SPDX-License-Identifier: Apache-2.0
"""ConvNet: the network that distilled sets are made with, and compared by.

S. Gidaris and N. Komodakis, "Dynamic few-shot visual learning without forgetting", CVPR 2018, in
the form of B. Zhao et al., "Dataset condensation with gradient matching", ICLR 2021, section 3.1:
blocks of convolution, normalisation, activation and pooling, and a linear classifier. The
literature calls it ConvNet-D3 for CIFAR (32 pixels), D4 for Tiny ImageNet (64) and D5 for subsets
of ImageNet (128): always 4 by 4 maps before the classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ddkern.checks import as_count, check_choice
from ddkern.layers import norm_relu_pool
from ddkern.models.classifier import (
    Classifier,
    ClassifierOptions,
    make_norm,
    padding_for_small,
    size_after_halving,
)

__all__ = ["Blocks", "ConvNet", "ConvNetOptions"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
}
_POOLINGS: dict[str, type[nn.AvgPool2d | nn.MaxPool2d]] = {
    "average": nn.AvgPool2d,
    "max": nn.MaxPool2d,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNetOptions(ClassifierOptions):
    """The shape of a :class:`ConvNet`; the defaults are those of the literature.

    Attributes
    ----------
    in_channels, n_classes, image_size
        As in :class:`ClassifierOptions`.
    depth : int
        Blocks.
    width : int
        Channels of every block.
    norm : {"instance", "batch", "layer", "group", "none"}
        ``"instance"`` and ``"group"`` are group norms with one channel a group and with 4 groups.
    activation : {"relu", "leaky_relu", "sigmoid"}
    pooling : {"average", "max", "none"}
        By two, after every activation.

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or out of range, ``width`` is no multiple of the 4 groups, or
        pooling leaves nothing of the image.
    """

    depth: int = 3
    width: int = 128
    norm: Literal["instance", "batch", "layer", "group", "none"] = "instance"
    activation: Literal["relu", "leaky_relu", "sigmoid"] = "relu"
    pooling: Literal["average", "max", "none"] = "average"

    def __post_init__(self) -> None:
        ClassifierOptions.__post_init__(self)
        for name in ("depth", "width"):
            object.__setattr__(self, name, as_count(name, getattr(self, name)))
        check_choice("norm", self.norm, ("instance", "batch", "layer", "group", "none"))
        check_choice("activation", self.activation, tuple(_ACTIVATIONS))
        check_choice("pooling", self.pooling, (*_POOLINGS, "none"))
        if self.norm == "group" and self.width % 4:
            raise ValueError(f"width={self.width}; with norm='group' it must be a multiple of 4")
        self.map_size(self.depth)

    def map_size(self, n_blocks: int) -> tuple[int, int]:
        """Height and width of the maps after the first ``n_blocks`` blocks."""
        halvings = 0 if self.pooling == "none" else n_blocks
        return size_after_halving(self.image_size, halvings, f"ConvNet of depth {self.depth}")


class Blocks(nn.Sequential):
    """Layers in a row, of which norm, ReLU and pooling can run as one.

    Attributes
    ----------
    fused : bool
        Whether an instance norm, a ReLU and an average pooling by two that follow each other are
        computed by :func:`ddkern.layers.norm_relu_pool`, with the channels of all maps last. Hooks
        of these three are then not called. False at first; set by
        :func:`ddkern.models.accelerate`.
    """

    fused = False

    def can_fuse(self) -> bool:
        """Whether there are three layers in a row that :attr:`fused` has an effect on."""
        layers = list(self)
        return any(norm_to_fuse(layers[at : at + 3]) is not None for at in range(len(layers)))

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps of images."""
        layers = list(self)
        if not self.fused:
            for layer in layers:
                images = layer(images)
            return images
        # Convolutions keep the layout of their input.
        images = images.contiguous(memory_format=torch.channels_last)
        at = 0
        while at < len(layers):
            norm = norm_to_fuse(layers[at : at + 3])
            if norm is None:
                images = layers[at](images)
                at += 1
            else:
                images = norm_relu_pool(images, norm.weight, norm.bias, norm.eps)
                at += 3
        return images


def norm_to_fuse(layers: Sequence[nn.Module]) -> nn.GroupNorm | None:
    """The first of three layers, if an instance norm, a ReLU and an average pooling by two.

    An instance norm is a group norm with one channel a group, here with scale and shift.
    Subclasses may compute something else and do not count.
    """
    if [type(layer) for layer in layers] != [nn.GroupNorm, nn.ReLU, nn.AvgPool2d]:
        return None
    norm, pool = cast("nn.GroupNorm", layers[0]), cast("nn.AvgPool2d", layers[2])
    is_instance_norm = norm.num_groups == norm.num_channels and norm.affine
    pools_by_two = (
        (pool.kernel_size, pool.stride, pool.padding) == (2, 2, 0)
        and not pool.ceil_mode
        and pool.divisor_override is None
    )
    return norm if is_instance_norm and pools_by_two else None


class ConvNet(Classifier):
    """Blocks of 3 by 3 convolution, norm, activation and pooling, and a linear classifier.

    Parameters
    ----------
    options : ConvNetOptions
        320,010 parameters with the defaults, 10 classes and images of 32 by 32 pixels.

    Notes
    -----
    Parameters come in the order of the layers, weight before bias, and ``features`` is flat: state
    dictionaries and expert trajectories of the reference implementations fit. Images of 28 by 28
    pixels are padded to 32 by the first convolution. With every norm but ``"batch"`` the network
    has no state besides its parameters, and works under ``torch.func`` in training mode.
    :func:`ddkern.models.accelerate` makes training on the CPU several times faster.
    """

    options: ConvNetOptions

    def __init__(self, options: ConvNetOptions) -> None:
        super().__init__()
        self.options = options
        layers: list[nn.Module] = []
        channels = options.in_channels
        for block in range(options.depth):
            padding = padding_for_small(1, options.image_size) if block == 0 else 1
            layers.append(nn.Conv2d(channels, options.width, kernel_size=3, padding=padding))
            layers += make_norm(options.norm, options.width, options.map_size(block))
            layers.append(_ACTIVATIONS[options.activation]())
            if options.pooling != "none":
                layers.append(_POOLINGS[options.pooling](kernel_size=2))
            channels = options.width
        height, width = options.map_size(options.depth)
        self.features = Blocks(*layers)
        self.classifier = nn.Linear(channels * height * width, options.n_classes)
