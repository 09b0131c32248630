# SPDX-License-Identifier: Apache-2.0
"""What all image classifiers here share: their options, features before the last layer, norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ddkern.checks import as_count, as_image_size

__all__ = [
    "Classifier",
    "ClassifierOptions",
    "embed",
    "make_norm",
    "padding_for_small",
    "size_after_halving",
]

# Channels are normalised in this many groups where the norm is "group".
_NORM_GROUPS = 4

# Images of this side are padded to 32 by the first convolution.
_MNIST_SIDE = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierOptions:
    """What every classifier has to know.

    Attributes
    ----------
    in_channels : int
        Channels of an image.
    n_classes : int
        Length of the output.
    image_size : (int, int)
        Height and width in pixels.

    Raises
    ------
    TypeError, ValueError
        If a field is of another type or out of range.
    """

    in_channels: int = 3
    n_classes: int
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        for name in ("in_channels", "n_classes"):
            object.__setattr__(self, name, as_count(name, getattr(self, name)))
        object.__setattr__(self, "image_size", as_image_size(self.image_size))


class Classifier(nn.Module):
    """A network whose last layer is linear in features that can be asked for.

    Attributes
    ----------
    options : ClassifierOptions
        What it was built from.
    features : nn.Module
        Images to feature maps.
    classifier : nn.Linear
        Features to logits.
    """

    options: ClassifierOptions
    features: nn.Module
    classifier: nn.Linear

    def embed(self, images: Tensor) -> Tensor:
        """Features before the last layer, of shape (n, n_features)."""
        maps: Tensor = self.features(images)
        return maps.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (n, n_classes) of images of shape (n, in_channels, height, width)."""
        logits: Tensor = self.classifier(self.embed(images))
        return logits


def embed(model: nn.Module, images: Tensor) -> Tensor:
    """Features of images, as distribution matching and coreset selection compare them.

    Parameters
    ----------
    model : nn.Module
        With a method ``embed(images)``, as every :class:`Classifier` has.
    images : Tensor, shape (n, channels, height, width)

    Returns
    -------
    Tensor, shape (n, n_features)

    Raises
    ------
    TypeError
        If the module has no such method.
    ValueError
        If what the method returns has another shape.
    """
    method: Any = getattr(model, "embed", None)
    if not callable(method):
        raise TypeError(
            f"model is a {type(model).__name__} without a method embed(images); features need one "
            "that returns a tensor of shape (n, n_features)"
        )
    features = method(images)
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != len(images):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"embed() of {type(model).__name__} gave {shape}; it must be a tensor of shape "
            f"(n, n_features) with n={len(images)}"
        )
    return features


def make_norm(norm: str, channels: int, map_size: tuple[int, int]) -> list[nn.Module]:
    """The normalisation of feature maps of shape (channels, *map_size), as a list of 0 or 1 layers.

    ``"instance"`` is a group norm with one channel a group, with scale and shift, as in the
    reference implementations: ``nn.InstanceNorm2d`` has neither by default, and no other state.
    """
    if norm == "none":
        return []
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    if norm == "layer":
        return [nn.LayerNorm([channels, *map_size])]
    return [nn.GroupNorm(channels if norm == "instance" else _NORM_GROUPS, channels)]


def padding_for_small(padding: int, image_size: tuple[int, int]) -> int:
    """The padding of the first convolution: two pixels more for 28 by 28, which makes it 32."""
    return padding + 2 if image_size == (_MNIST_SIDE, _MNIST_SIDE) else padding


def size_after_halving(image_size: tuple[int, int], times: int, name: str) -> tuple[int, int]:
    """Size of the maps after so many poolings by two; 28 by 28 counts as 32 by 32.

    Raises
    ------
    ValueError
        If nothing is left. The message says that ``name`` needs larger images.
    """
    height, width = ((side + 2 * padding_for_small(0, image_size)) >> times for side in image_size)
    if min(height, width) < 1:
        raise ValueError(
            f"image_size={image_size}; {name} halves its maps {times} times and needs sides of at "
            f"least {1 << times} pixels"
        )
    return height, width
