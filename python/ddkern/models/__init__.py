# SPDX-License-Identifier: Apache-2.0
"""Networks that learn from distilled data, and give the features that it is distilled by.

:func:`make_model` builds one from a name, a factory or a module. ConvNet, ResNet-18, VGG-11,
AlexNet and the perceptron in the forms that the literature on dataset distillation uses for small
images are defined here, since no maintained library has them; the others come from transformers,
untrained.

Importing this package needs torch: ``pip install ddkern[torch]``. Names that come from
transformers need that as well: ``pip install ddkern[models]``.
"""

from __future__ import annotations

from ddkern.models.accelerate import accelerate
from ddkern.models.alexnet import AlexNet, AlexNetOptions
from ddkern.models.classifier import Classifier, ClassifierOptions, embed
from ddkern.models.convnet import ConvNet, ConvNetOptions
from ddkern.models.digest import digest_of_weights
from ddkern.models.flat import FlatNetwork
from ddkern.models.make import ModelFactory, make_model, model_names
from ddkern.models.mlp import MLP, MLPOptions
from ddkern.models.resnet import ResNet, ResNetOptions
from ddkern.models.vgg import VGG, VGGOptions

__all__ = [
    "MLP",
    "VGG",
    "AlexNet",
    "AlexNetOptions",
    "Classifier",
    "ClassifierOptions",
    "ConvNet",
    "ConvNetOptions",
    "FlatNetwork",
    "MLPOptions",
    "ModelFactory",
    "ResNet",
    "ResNetOptions",
    "VGGOptions",
    "accelerate",
    "digest_of_weights",
    "embed",
    "make_model",
    "model_names",
]
