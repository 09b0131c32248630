# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 for small images: its size, and the forward pass step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional

from ddkern.models import ResNetOptions, make_model


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_size_of_the_literature(norm: str) -> None:
    model = make_model("resnet-18", n_classes=10, image_size=32, norm=norm)
    assert sum(p.numel() for p in model.parameters()) == 11_173_962


def normalised(norm: str, maps: Any, parameters: Iterator[Any]) -> Any:
    weight, bias = next(parameters), next(parameters)
    if norm == "instance":
        return functional.instance_norm(maps, weight=weight, bias=bias)
    return functional.batch_norm(maps, None, None, weight, bias, training=True)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_forward_step_by_step(norm: str) -> None:
    model = make_model("resnet-18", n_classes=10, image_size=(16, 20), norm=norm, seed=0).double()
    parameters = iter(model.parameters())
    images = torch.randn(2, 3, 16, 20, dtype=torch.float64)
    maps = functional.conv2d(images, next(parameters), padding=1)
    maps = normalised(norm, maps, parameters).relu()
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            inner = functional.conv2d(maps, next(parameters), stride=stride, padding=1)
            inner = normalised(norm, inner, parameters).relu()
            inner = functional.conv2d(inner, next(parameters), padding=1)
            inner = normalised(norm, inner, parameters)
            if stride == 2:
                maps = functional.conv2d(maps, next(parameters), stride=2)
                maps = normalised(norm, maps, parameters)
            maps = (inner + maps).relu()
    features = maps.mean((2, 3))
    torch.testing.assert_close(model.embed(images), features)
    expected = functional.linear(features, next(parameters), next(parameters))
    assert list(parameters) == []
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("side", [9, 28, 64])
def test_other_sizes(side: int) -> None:
    model = make_model("resnet-18", n_classes=3, image_size=side, in_channels=1)
    assert model(torch.zeros(1, 1, side, side)).shape == (1, 3)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"image_size=\(32, 8\); ResNet-18 needs .* 9 pixels"):
        ResNetOptions(n_classes=10, image_size=(32, 8))
    with pytest.raises(ValueError, match="norm='layer'; it must be one of 'instance', 'batch'"):
        ResNetOptions(n_classes=10, image_size=(32, 32), norm="layer")  # type: ignore[arg-type]
