# SPDX-License-Identifier: Apache-2.0
"""AlexNet for small images: its size, and the forward pass step by step."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional

from ddkern.models import AlexNetOptions, make_model


def test_size_of_the_literature() -> None:
    model = make_model("alexnet", n_classes=10, image_size=32)
    shapes = [tuple(p.shape) for p in model.parameters() if p.dim() > 1]
    assert shapes == [
        (128, 3, 5, 5),
        (192, 128, 5, 5),
        (256, 192, 3, 3),
        (192, 256, 3, 3),
        (192, 192, 3, 3),
        (10, 3072),
    ]
    assert sum(p.numel() for p in model.parameters()) == 1_872_202


def test_forward_step_by_step() -> None:
    model = make_model("alexnet", n_classes=10, image_size=(16, 24), seed=0)
    parameters = iter(model.parameters())
    images = maps = torch.randn(2, 3, 16, 24)
    for padding, pooled in ((2, True), (2, True), (1, False), (1, False), (1, True)):
        maps = functional.conv2d(maps, next(parameters), next(parameters), padding=padding).relu()
        maps = functional.max_pool2d(maps, 2) if pooled else maps
    expected = functional.linear(maps.flatten(1), next(parameters), next(parameters))
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(("side", "n_features"), [(28, 3072), (32, 3072), (64, 12288)])
def test_features_of_other_sizes(side: int, n_features: int) -> None:
    model = make_model("alexnet", n_classes=10, image_size=side, in_channels=1)
    assert model.embed(torch.zeros(1, 1, side, side)).shape == (1, n_features)


def test_too_small() -> None:
    with pytest.raises(ValueError, match="AlexNet halves its maps 3 times .* at least 8 pixels"):
        AlexNetOptions(n_classes=10, image_size=(8, 7))
