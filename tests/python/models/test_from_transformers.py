# SPDX-License-Identifier: Apache-2.0
"""Networks of transformers: known sizes, tensors in and out, features, seeds."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from ddkern.errors import UnsupportedError
from ddkern.models import embed, make_model
from ddkern.models.from_transformers import TRANSFORMERS_MODELS

# Options that make each of them small.
NARROW: dict[str, dict[str, Any]] = {
    "convnext-tiny": {"hidden_sizes": [4, 8, 8, 12], "depths": [1, 1, 1, 1]},
    "mobilenet-v2": {"depth_multiplier": 0.1},
    "resnet-101-imagenet": {"hidden_sizes": [8, 8, 8, 12], "depths": [1, 1, 1, 1]},
    "resnet-18-imagenet": {"embedding_size": 4, "hidden_sizes": [4, 4, 8, 8]},
    "resnet-50-imagenet": {"hidden_sizes": [8, 8, 8, 12], "depths": [1, 1, 1, 1]},
    "vit-tiny": {"hidden_size": 12, "num_hidden_layers": 2, "intermediate_size": 8},
}


def test_every_name_needs_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in TRANSFORMERS_MODELS:
        with pytest.raises(UnsupportedError, match=r"pip install ddkern\[models\]"):
            make_model(name, n_classes=10, image_size=32)


@pytest.mark.parametrize("name", sorted(TRANSFORMERS_MODELS))
def test_small_images_in_logits_and_features_out(name: str) -> None:
    pytest.importorskip("transformers")
    arguments: dict[str, Any] = {"in_channels": 1, "n_classes": 7, "image_size": 32, **NARROW[name]}
    before = torch.random.get_rng_state()
    model = make_model(name, seed=1, **arguments)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    model.eval()
    x = torch.randn(3, 1, 32, 32)
    logits, features = model(x), embed(model, x)
    assert logits.shape == (3, 7)
    # The classifier of ResNet flattens maps first, so it takes vectors as well.
    torch.testing.assert_close(model.network.classifier(features), logits)
    again = make_model(name, seed=1, **arguments).eval()
    assert torch.equal(again(x), logits)
    assert not torch.equal(make_model(name, seed=2, **arguments).eval()(x), logits)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # The sizes that the papers' other implementations have for ImageNet.
        ("mobilenet-v2", 3_504_872),
        ("resnet-18-imagenet", 11_689_512),
        ("resnet-50-imagenet", 25_557_032),
        ("vit-tiny", 5_717_416),
    ],
)
def test_sizes_for_imagenet(name: str, parameters: int) -> None:
    pytest.importorskip("transformers")
    model = make_model(name, n_classes=1000, image_size=224)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_patches_must_tile_the_image() -> None:
    with pytest.raises(ValueError, match=r"\(30, 32\); vit-tiny with patch_size=4 needs sides"):
        make_model("vit-tiny", n_classes=10, image_size=(30, 32))
    with pytest.raises(ValueError, match="vit-tiny with patch_size=16 needs sides"):
        make_model("vit-tiny", n_classes=10, image_size=100)


def test_gradients_reach_images_and_weights() -> None:
    pytest.importorskip("transformers")
    model = make_model("vit-tiny", n_classes=3, image_size=(8, 12), **NARROW["vit-tiny"])
    x = torch.randn(2, 3, 8, 12, requires_grad=True)
    model(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in model.parameters())
