# SPDX-License-Identifier: Apache-2.0
"""Classifiers of the transformers library, untrained, with the interface of this package.

Nothing is downloaded: a network is built from a configuration and initialised as its authors do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ddkern.errors import UnsupportedError
from ddkern.models.classifier import ClassifierOptions

__all__ = ["TRANSFORMERS_MODELS", "TransformersClassifier"]

# Vision transformers cut images of up to this side into patches of 4 pixels, larger ones into 16.
_SMALL_SIDE = 64


class TransformersClassifier(nn.Module):
    """An image classifier of transformers that takes a tensor of images and returns logits.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        With a ``base_model`` and a ``classifier``.

    Attributes
    ----------
    network : transformers.PreTrainedModel
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def embed(self, images: Tensor) -> Tensor:
        """Pooled features, or the class token, before the last layer: (n, n_features)."""
        output = self.network.base_model(pixel_values=images)
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        tokens: Tensor = output.last_hidden_state
        return tokens[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (n, n_classes) of images of shape (n, channels, height, width)."""
        logits: Tensor = self.network(pixel_values=images).logits
        return logits


def _build(
    config_class: str, network_class: str, facts: dict[str, Any], options: dict[str, Any]
) -> TransformersClassifier:
    try:
        transformers = importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"{network_class} comes from the package transformers, which is not installed "
            "(pip install ddkern[models])"
        ) from error
    config = getattr(transformers, config_class)(**{**facts, **options})
    return TransformersClassifier(getattr(transformers, network_class)(config))


def _resnet(
    layer_type: str, depths: list[int], widths: list[int]
) -> Callable[..., TransformersClassifier]:
    def build(shape: ClassifierOptions, **options: Any) -> TransformersClassifier:
        facts = {
            "num_channels": shape.in_channels,
            "num_labels": shape.n_classes,
            "embedding_size": 64,
            "hidden_sizes": widths,
            "depths": depths,
            "layer_type": layer_type,
        }
        return _build("ResNetConfig", "ResNetForImageClassification", facts, options)

    return build


def _convnext_tiny(shape: ClassifierOptions, **options: Any) -> TransformersClassifier:
    facts = {
        "num_channels": shape.in_channels,
        "num_labels": shape.n_classes,
        "image_size": shape.image_size,
    }
    return _build("ConvNextConfig", "ConvNextForImageClassification", facts, options)


def _vit_tiny(shape: ClassifierOptions, **options: Any) -> TransformersClassifier:
    patch = 4 if max(shape.image_size) <= _SMALL_SIDE else 16
    patch = options.get("patch_size", patch)
    if any(side % patch for side in shape.image_size):
        raise ValueError(
            f"image_size={shape.image_size}; vit-tiny with patch_size={patch} needs sides that are "
            "multiples of it"
        )
    facts = {
        "num_channels": shape.in_channels,
        "num_labels": shape.n_classes,
        "image_size": shape.image_size,
        "patch_size": patch,
        "hidden_size": 192,
        "num_hidden_layers": 12,
        "num_attention_heads": 3,
        "intermediate_size": 768,
    }
    return _build("ViTConfig", "ViTForImageClassification", facts, options)


def _mobilenet_v2(shape: ClassifierOptions, **options: Any) -> TransformersClassifier:
    facts = {
        "num_channels": shape.in_channels,
        "num_labels": shape.n_classes,
        # The side is kept for information alone; the network takes any size.
        "image_size": max(shape.image_size),
        # The default of the configuration drops 80 % of the features; the usual recipes drop 20 %.
        "classifier_dropout_prob": 0.2,
    }
    return _build("MobileNetV2Config", "MobileNetV2ForImageClassification", facts, options)


TRANSFORMERS_MODELS: dict[str, Callable[..., TransformersClassifier]] = {
    "convnext-tiny": _convnext_tiny,
    "mobilenet-v2": _mobilenet_v2,
    "resnet-101-imagenet": _resnet("bottleneck", [3, 4, 23, 3], [256, 512, 1024, 2048]),
    "resnet-18-imagenet": _resnet("basic", [2, 2, 2, 2], [64, 128, 256, 512]),
    "resnet-50-imagenet": _resnet("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    "vit-tiny": _vit_tiny,
}
