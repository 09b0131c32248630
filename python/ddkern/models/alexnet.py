# SPDX-License-Identifier: Apache-2.0
"""AlexNet for small images, as dataset distillation compares architectures with it.

A. Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", NIPS 2012,
in the form of B. Zhao et al., "Dataset condensation with gradient matching", ICLR 2021: five
convolutions, three poolings, no norm, no dropout, one linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ddkern.models.classifier import (
    Classifier,
    ClassifierOptions,
    padding_for_small,
    size_after_halving,
)

__all__ = ["AlexNet", "AlexNetOptions"]

# Channels and kernel of each convolution, and whether a pooling by two follows.
_CONVOLUTIONS = (
    (128, 5, True),
    (192, 5, True),
    (256, 3, False),
    (192, 3, False),
    (192, 3, True),
)
_HALVINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AlexNetOptions(ClassifierOptions):
    """What an :class:`AlexNet` has to know: the fields of :class:`ClassifierOptions`.

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or out of range, or a side is below 8 pixels.
    """

    def __post_init__(self) -> None:
        ClassifierOptions.__post_init__(self)
        size_after_halving(self.image_size, _HALVINGS, "AlexNet")


class AlexNet(Classifier):
    """Five convolutions with ReLU, three poolings by two, a linear classifier.

    Parameters
    ----------
    options : AlexNetOptions
        1,872,202 parameters with 10 classes and images of 32 by 32 pixels. The features of larger
        images are longer; images of 28 by 28 pixels are padded to 32 by the first convolution.
    """

    options: AlexNetOptions

    def __init__(self, options: AlexNetOptions) -> None:
        super().__init__()
        self.options = options
        layers: list[nn.Module] = []
        channels = options.in_channels
        for index, (width, kernel, pooled) in enumerate(_CONVOLUTIONS):
            padding = kernel // 2
            if index == 0:
                padding = padding_for_small(padding, options.image_size)
            layers += [nn.Conv2d(channels, width, kernel, padding=padding), nn.ReLU()]
            if pooled:
                layers.append(nn.MaxPool2d(kernel_size=2))
            channels = width
        rows, columns = size_after_halving(options.image_size, _HALVINGS, "AlexNet")
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * rows * columns, options.n_classes)
