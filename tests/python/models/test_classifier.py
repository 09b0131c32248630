# SPDX-License-Identifier: Apache-2.0
"""Options that all classifiers have, and features of any model."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from ddkern.models import ClassifierOptions, ConvNet, ConvNetOptions, embed
from ddkern.models.classifier import size_after_halving


def test_options_are_plain_and_frozen() -> None:
    options = ClassifierOptions(n_classes=10, image_size=[32, 28])  # type: ignore[arg-type]
    assert options == ClassifierOptions(in_channels=3, n_classes=10, image_size=(32, 28))
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.n_classes = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_classes": 0, "image_size": 32}, ValueError, "n_classes=0"),
        ({"n_classes": 2.0, "image_size": 32}, TypeError, "n_classes=2.0 is a float"),
        ({"n_classes": 2, "image_size": 32, "in_channels": -3}, ValueError, "in_channels=-3"),
        ({"n_classes": 2, "image_size": (32,)}, ValueError, r"image_size=\(32,\)"),
        ({"n_classes": 2, "image_size": (3, 32, 32)}, ValueError, "side or \\(height, width\\)"),
        ({"n_classes": 2, "image_size": (32, 0)}, ValueError, r"image_size\[1\]=0"),
        ({"n_classes": 2, "image_size": "32"}, TypeError, "image_size='32' is a str"),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClassifierOptions(**options)


def test_image_size_as_torch_gives_it() -> None:
    options = ClassifierOptions(n_classes=10, image_size=torch.zeros(1, 3, 5, 7).shape[2:])
    assert options.image_size == (5, 7)


def test_28_pixels_count_as_32() -> None:
    assert size_after_halving((28, 28), 5, "it") == (1, 1)
    assert size_after_halving((33, 70), 5, "it") == (1, 2)
    with pytest.raises(ValueError, match=r"image_size=\(28, 31\); it halves .* 5 times .* 32 pix"):
        size_after_halving((28, 31), 5, "it")


def test_embed_gives_what_the_last_layer_sees() -> None:
    model = ConvNet(ConvNetOptions(n_classes=4, image_size=(8, 8), depth=2, width=8))
    images = torch.randn(5, 3, 8, 8)
    features = embed(model, images)
    assert features.shape == (5, 8 * 2 * 2)
    assert torch.equal(model.classifier(features), model(images))


def test_embed_needs_a_method() -> None:
    with pytest.raises(TypeError, match=r"model is a Linear without a method embed\(images\)"):
        embed(torch.nn.Linear(3, 3), torch.zeros(1, 3))


def test_embed_checks_what_the_method_returns() -> None:
    class Maps(torch.nn.Module):
        def embed(self, images: Any) -> Any:
            return images

    class Pair(torch.nn.Module):
        def embed(self, images: Any) -> Any:
            return images, images

    class First(torch.nn.Module):
        def embed(self, images: Any) -> Any:
            return images[:1].flatten(1)

    with pytest.raises(ValueError, match=r"embed\(\) of First gave \(1, 48\); .* with n=2"):
        embed(First(), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"embed\(\) of Maps gave \(2, 3, 4, 4\)"):
        embed(Maps(), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"embed\(\) of Pair gave tuple"):
        embed(Pair(), torch.zeros(2, 3, 4, 4))
