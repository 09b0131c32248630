# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 for small images, as dataset distillation compares architectures with it.

K. He et al., "Deep residual learning for image recognition", CVPR 2016, with a first convolution of
3 by 3 and no first pooling, in the form of B. Zhao et al., "Dataset condensation with gradient
matching", ICLR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ddkern.checks import check_choice
from ddkern.models.classifier import Classifier, ClassifierOptions, make_norm

__all__ = ["ResNet", "ResNetOptions"]

_WIDTHS = (64, 128, 256, 512)
_BLOCKS_PER_STAGE = 2

# Three stages halve the maps. Below two pixels a norm over the pixels of a map leaves nothing.
_SMALLEST_SIDE = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetOptions(ClassifierOptions):
    """The shape of a :class:`ResNet`.

    Attributes
    ----------
    in_channels, n_classes, image_size
        As in :class:`ClassifierOptions`.
    norm : {"instance", "batch"}
        ``"instance"``, the default of the literature, is a group norm with one channel a group.

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or out of range, or a side is below 9 pixels.
    """

    norm: Literal["instance", "batch"] = "instance"

    def __post_init__(self) -> None:
        ClassifierOptions.__post_init__(self)
        check_choice("norm", self.norm, ("instance", "batch"))
        if min(self.image_size) < _SMALLEST_SIDE:
            raise ValueError(
                f"image_size={self.image_size}; ResNet-18 needs sides of at least "
                f"{_SMALLEST_SIDE} pixels"
            )


class ResNet(Classifier):
    """Four stages of two residual blocks, the mean over pixels, a linear classifier.

    Parameters
    ----------
    options : ResNetOptions
        11,173,962 parameters with 10 classes and three channels, whatever the image size.
    """

    options: ResNetOptions

    def __init__(self, options: ResNetOptions) -> None:
        super().__init__()
        self.options = options
        width = _WIDTHS[0]
        layers: list[nn.Module] = [
            nn.Conv2d(options.in_channels, width, kernel_size=3, padding=1, bias=False),
            *make_norm(options.norm, width, options.image_size),
            nn.ReLU(),
        ]
        for stage, out_width in enumerate(_WIDTHS):
            for block in range(_BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(_ResidualBlock(width, out_width, stride, options))
                width = out_width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(width, options.n_classes)


class _ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution of 1 by 1 where shapes differ."""

    def __init__(self, width: int, out_width: int, stride: int, options: ResNetOptions) -> None:
        super().__init__()
        size = options.image_size
        self.residual = nn.Sequential(
            nn.Conv2d(width, out_width, 3, stride=stride, padding=1, bias=False),
            *make_norm(options.norm, out_width, size),
            nn.ReLU(),
            nn.Conv2d(out_width, out_width, 3, padding=1, bias=False),
            *make_norm(options.norm, out_width, size),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or width != out_width:
            self.shortcut.append(nn.Conv2d(width, out_width, 1, stride=stride, bias=False))
            self.shortcut.extend(make_norm(options.norm, out_width, size))
        self.activation = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of shape (n, width, h, w) to (n, out_width, h / stride, w / stride), rounded up."""
        result: Tensor = self.activation(self.residual(maps) + self.shortcut(maps))
        return result
