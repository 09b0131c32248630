# SPDX-License-Identifier: Apache-2.0
"""A multilayer perceptron, as dataset distillation compares architectures with it.

B. Zhao et al., "Dataset condensation with gradient matching", ICLR 2021, section 4: pixels, two
hidden layers of 128 units with ReLU, a linear classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from ddkern.checks import as_count
from ddkern.models.classifier import Classifier, ClassifierOptions

__all__ = ["MLP", "MLPOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MLPOptions(ClassifierOptions):
    """The shape of an :class:`MLP`; the defaults are those of the literature.

    Attributes
    ----------
    in_channels, n_classes, image_size
        As in :class:`ClassifierOptions`.
    depth : int
        Hidden layers.
    width : int
        Units of every hidden layer.

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or out of range.
    """

    depth: int = 2
    width: int = 128

    def __post_init__(self) -> None:
        ClassifierOptions.__post_init__(self)
        for name in ("depth", "width"):
            object.__setattr__(self, name, as_count(name, getattr(self, name)))


class MLP(Classifier):
    """Hidden layers with ReLU on all pixels, a linear classifier.

    Parameters
    ----------
    options : MLPOptions
        411,146 parameters with 10 classes and colour images of 32 by 32 pixels.
    """

    options: MLPOptions

    def __init__(self, options: MLPOptions) -> None:
        super().__init__()
        self.options = options
        height, width = options.image_size
        sizes = [options.in_channels * height * width, *[options.width] * options.depth]
        layers: list[nn.Module] = [nn.Flatten()]
        for n_inputs, n_units in pairwise(sizes):
            layers += [nn.Linear(n_inputs, n_units), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(sizes[-1], options.n_classes)
