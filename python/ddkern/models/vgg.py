# SPDX-License-Identifier: Apache-2.0
"""VGG-11 for small images, as dataset distillation compares architectures with it.

K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale image recognition",
ICLR 2015, configuration A, in the form of B. Zhao et al., "Dataset condensation with gradient
matching", ICLR 2021: a norm after each convolution, one linear layer instead of three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from ddkern.checks import check_choice
from ddkern.models.classifier import (
    Classifier,
    ClassifierOptions,
    make_norm,
    padding_for_small,
    size_after_halving,
)

__all__ = ["VGG", "VGGOptions"]

# Channels of the convolutions between one pooling by two and the next.
_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


@dataclass(frozen=True, slots=True, kw_only=True)
class VGGOptions(ClassifierOptions):
    """The shape of a :class:`VGG`.

    Attributes
    ----------
    in_channels, n_classes, image_size
        As in :class:`ClassifierOptions`.
    norm : {"instance", "batch"}
        ``"instance"``, the default of the literature, is a group norm with one channel a group.

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or out of range, or a side is below 32 pixels (28 by 28 is
        padded to 32).
    """

    norm: Literal["instance", "batch"] = "instance"

    def __post_init__(self) -> None:
        ClassifierOptions.__post_init__(self)
        check_choice("norm", self.norm, ("instance", "batch"))
        size_after_halving(self.image_size, len(_STAGES), "VGG-11")


class VGG(Classifier):
    """Eight convolutions of 3 by 3 in five stages, each ending in a pooling, a linear classifier.

    Parameters
    ----------
    options : VGGOptions
        9,231,114 parameters with 10 classes and images of 32 by 32 pixels. The features of larger
        images are longer.
    """

    options: VGGOptions

    def __init__(self, options: VGGOptions) -> None:
        super().__init__()
        self.options = options
        layers: list[nn.Module] = []
        channels = options.in_channels
        for stage, widths in enumerate(_STAGES):
            for width in widths:
                padding = 1 if layers else padding_for_small(1, options.image_size)
                layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=padding))
                map_size = size_after_halving(options.image_size, stage, "VGG-11")
                layers += [*make_norm(options.norm, width, map_size), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(kernel_size=2))
        rows, columns = size_after_halving(options.image_size, len(_STAGES), "VGG-11")
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * rows * columns, options.n_classes)
