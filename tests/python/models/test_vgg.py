# SPDX-License-Identifier: Apache-2.0
"""VGG-11 for small images: its size, and the forward pass step by step."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional

from ddkern.models import VGGOptions, make_model


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_size_of_the_literature(norm: str) -> None:
    model = make_model("vgg-11", n_classes=10, image_size=32, norm=norm)
    shapes = [tuple(p.shape) for p in model.parameters() if p.dim() > 1]
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    pairs = zip(widths[1:], widths[:-1], strict=True)
    assert shapes == [*((wide, narrow, 3, 3) for wide, narrow in pairs), (10, 512)]
    assert sum(p.numel() for p in model.parameters()) == 9_231_114


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_forward_step_by_step(norm: str) -> None:
    # In double precision: the last norms are over four pixels, and may amplify roundings.
    model = make_model("vgg-11", n_classes=10, image_size=32, norm=norm, seed=0).double()
    parameters = iter(model.parameters())
    images = maps = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for pooled in (True, True, False, True, False, True, False, True):
        maps = functional.conv2d(maps, next(parameters), next(parameters), padding=1)
        weight, bias = next(parameters), next(parameters)
        if norm == "instance":
            maps = functional.instance_norm(maps, weight=weight, bias=bias)
        else:
            maps = functional.batch_norm(maps, None, None, weight, bias, training=True)
        maps = functional.max_pool2d(maps.relu(), 2) if pooled else maps.relu()
    expected = functional.linear(maps.flatten(1), next(parameters), next(parameters))
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(("side", "n_features"), [(28, 512), (64, 2048)])
def test_features_of_other_sizes(side: int, n_features: int) -> None:
    model = make_model("vgg-11", n_classes=10, image_size=side, in_channels=1)
    assert model.embed(torch.zeros(1, 1, side, side)).shape == (1, n_features)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="VGG-11 halves its maps 5 times .* at least 32 pixels"):
        VGGOptions(n_classes=10, image_size=(32, 16))
    with pytest.raises(ValueError, match="norm='none'; it must be one of 'instance', 'batch'"):
        VGGOptions(n_classes=10, image_size=(32, 32), norm="none")  # type: ignore[arg-type]
