# SPDX-License-Identifier: Apache-2.0
"""The perceptron: its size, and the forward pass step by step."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional

from ddkern.models import MLPOptions, make_model


def test_size_of_the_literature() -> None:
    model = make_model("mlp", n_classes=10, image_size=32)
    shapes = [tuple(p.shape) for p in model.parameters() if p.dim() > 1]
    assert shapes == [(128, 3072), (128, 128), (10, 128)]
    assert sum(p.numel() for p in model.parameters()) == 411_146


def test_forward_step_by_step() -> None:
    model = make_model("mlp", n_classes=3, image_size=(4, 6), in_channels=2, seed=0, depth=1)
    weight, bias, last, last_bias = model.parameters()
    images = torch.randn(5, 2, 4, 6)
    hidden = functional.linear(images.flatten(1), weight, bias).relu()
    torch.testing.assert_close(model.embed(images), hidden)
    torch.testing.assert_close(model(images), functional.linear(hidden, last, last_bias))


@pytest.mark.parametrize("name", ["depth", "width"])
def test_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0; it must be an integer of at least 1"):
        MLPOptions(n_classes=10, image_size=8, **{name: 0})
