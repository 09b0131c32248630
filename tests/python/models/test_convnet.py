# SPDX-License-Identifier: Apache-2.0
"""ConvNet: sizes of the literature, the forward pass step by step, training under torch.func."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

from ddkern.models import ConvNet, ConvNetOptions, make_model

NORMS = ("instance", "batch", "layer", "group", "none")


def small(seed: int = 0, **options: Any) -> Any:
    """A ConvNet of two blocks for images of 8 by 12, in float64, with parameters all different."""
    model = make_model(
        "convnet-d3", n_classes=5, image_size=(8, 12), seed=seed, **{"width": 8, **options}
    ).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise, alpha=0.1)
    return model


def images(n: int = 4) -> Any:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 8, 12, generator=generator, dtype=torch.float64)


def count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "side", "n_classes", "parameters"),
    [
        # 3584 + 2 * 147584 of convolutions, 3 * 256 of norms, 20490 of the classifier.
        ("convnet-d3", 32, 10, 320_010),
        ("convnet-d3", 32, 100, 504_420),
        ("convnet-d4", 64, 200, 857_160),
        ("convnet-d5", 128, 10, 615_690),
    ],
)
def test_sizes_of_the_literature(name: str, side: int, n_classes: int, parameters: int) -> None:
    model = make_model(name, n_classes=n_classes, image_size=side)
    assert isinstance(model, ConvNet)
    assert count(model) == parameters
    assert model.embed(torch.zeros(2, 3, side, side)).shape == (2, 128 * 4 * 4)
    assert model(torch.zeros(2, 3, side, side)).shape == (2, n_classes)


def test_order_and_names_of_parameters() -> None:
    model = make_model("convnet-d3", n_classes=10, image_size=32)
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    block = [(128,), (128,), (128,)]
    convolutions = [(128, 3, 3, 3), (128, 128, 3, 3), (128, 128, 3, 3)]
    assert shapes == [s for c in convolutions for s in (c, *block)] + [(10, 2048), (10,)]
    assert list(model.state_dict())[:5] == [
        "features.0.weight",
        "features.0.bias",
        "features.1.weight",
        "features.1.bias",
        "features.4.weight",
    ]


def normalised(norm: str, maps: Any, weight: Any, bias: Any) -> Any:
    """Maps less their mean, over their standard deviation; the axes are what a norm is."""
    n, c, h, w = maps.shape
    groups = {
        "instance": maps.reshape(n, c, 1, h, w),
        "group": maps.reshape(n, 4, c // 4, h, w),
        "layer": maps.reshape(n, 1, c, h, w),
    }
    if norm == "batch":
        mean = maps.mean((0, 2, 3), keepdim=True)
        variance = maps.var((0, 2, 3), unbiased=False, keepdim=True)
        unit = (maps - mean) / (variance + 1e-5).sqrt()
    else:
        parts = groups[norm]
        mean = parts.mean((2, 3, 4), keepdim=True)
        variance = parts.var((2, 3, 4), unbiased=False, keepdim=True)
        unit = ((parts - mean) / (variance + 1e-5).sqrt()).reshape(n, c, h, w)
    if norm == "layer":
        return unit * weight + bias
    return unit * weight[:, None, None] + bias[:, None, None]


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda maps: maps.clamp(min=0),
    "leaky_relu": lambda maps: torch.where(maps > 0, maps, 0.01 * maps),
    "sigmoid": lambda maps: 1 / (1 + (-maps).exp()),
}


def pooled(pooling: str, maps: Any) -> Any:
    n, c, h, w = maps.shape
    if pooling == "none":
        return maps
    tiles = maps[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
    return tiles.mean((3, 5)) if pooling == "average" else tiles.amax((3, 5))


@pytest.mark.parametrize(
    ("norm", "activation", "pooling"),
    [
        *((norm, "relu", "average") for norm in NORMS),
        ("instance", "leaky_relu", "max"),
        ("instance", "sigmoid", "none"),
    ],
)
def test_forward_step_by_step(norm: str, activation: str, pooling: str) -> None:
    model = small(norm=norm, activation=activation, pooling=pooling)
    parameters = iter(model.parameters())
    maps = images()
    for _ in range(3):
        maps = functional.conv2d(maps, next(parameters), next(parameters), padding=1)
        if norm != "none":
            maps = normalised(norm, maps, next(parameters), next(parameters))
        maps = pooled(pooling, ACTIVATIONS[activation](maps))
    features = maps.reshape(4, -1)
    logits = features @ next(parameters).T + next(parameters)
    assert list(parameters) == []
    torch.testing.assert_close(model.embed(images()), features)
    torch.testing.assert_close(model(images()), logits)


@pytest.mark.parametrize("channels", [1, 3])
def test_28_pixels_are_padded_to_32(channels: int) -> None:
    model = make_model("convnet-d3", n_classes=10, image_size=28, in_channels=channels, seed=0)
    wide = make_model("convnet-d3", n_classes=10, image_size=32, in_channels=channels, seed=0)
    x = torch.randn(2, channels, 28, 28)
    framed = functional.pad(x, (2, 2, 2, 2))
    torch.testing.assert_close(model(x), wide(framed))


@pytest.mark.parametrize("norm", [norm for norm in NORMS if norm != "batch"])
def test_several_networks_at_once_as_one_by_one(norm: str) -> None:
    models = [small(seed, norm=norm) for seed in range(3)]
    parameters, buffers = stack_module_state(models)
    assert buffers == {}
    x = torch.stack([images(), images() + 1, 2 * images()])
    y = torch.tensor([0, 3, 1, 4])

    def loss(values: Any, batch: Any) -> Any:
        return functional.cross_entropy(functional_call(models[0], values, (batch,)), y)

    logits = vmap(lambda values, batch: functional_call(models[0], values, (batch,)))(parameters, x)
    gradients = vmap(grad(loss))(parameters, x)
    for i, model in enumerate(models):
        torch.testing.assert_close(logits[i], model(x[i]))
        alone = torch.autograd.grad(
            functional.cross_entropy(model(x[i]), y), list(model.parameters())
        )
        for (name, _), expected in zip(model.named_parameters(), alone, strict=True):
            torch.testing.assert_close(gradients[name][i], expected)


def test_copies_through_files_and_processes() -> None:
    model = small()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own
        assert again.options == model.options
        assert torch.equal(again(images()), model(images()))


def test_second_derivatives_through_a_training_step() -> None:
    model = small(activation="sigmoid", norm="instance", width=4)
    names = [name for name, _ in model.named_parameters()]
    start = [p.detach() for p in model.parameters()]
    y = torch.tensor([0, 3])

    def after_a_step(x: Any) -> Any:
        weights = [w.clone().requires_grad_() for w in start]
        logits = functional_call(model, dict(zip(names, weights, strict=True)), (x,))
        gradients = torch.autograd.grad(
            functional.cross_entropy(logits, y), weights, create_graph=True
        )
        return sum(((w - 0.1 * g) ** 3).sum() for w, g in zip(weights, gradients, strict=True))

    x = images(2).requires_grad_()
    direction = images(2).flip(0)
    (gradient,) = torch.autograd.grad(after_a_step(x), x)
    step = 1e-4
    change = after_a_step(x + step * direction) - after_a_step(x - step * direction)
    expected = change.item() / (2 * step)
    assert expected != 0
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5)


def test_it_learns() -> None:
    model = make_model("convnet-d3", n_classes=2, image_size=16, width=16, seed=0)
    generator = torch.Generator().manual_seed(0)
    # Stripes up and down or from side to side, which a norm over the pixels keeps, in noise.
    y = torch.arange(64) % 2
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(16, 16)
    x = torch.where(y[:, None, None].bool(), stripes, stripes.T)[:, None].repeat(1, 3, 1, 1)
    x = x + torch.randn(x.shape, generator=generator)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(25):
        optimiser.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
    assert (model(x).argmax(1) == y).float().mean() > 0.95


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"depth": 0}, ValueError, "depth=0"),
        ({"width": -4}, ValueError, "width=-4"),
        ({"width": 6, "norm": "group"}, ValueError, "width=6; with norm='group'"),
        ({"norm": "instancenorm"}, ValueError, "norm='instancenorm'; it must be one of 'instance'"),
        ({"activation": "gelu"}, ValueError, "activation='gelu'"),
        ({"pooling": None}, TypeError, "pooling is a NoneType"),
        (
            {"image_size": (32, 16), "depth": 5},
            ValueError,
            r"\(32, 16\); ConvNet of depth 5",
        ),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ConvNetOptions(**{"n_classes": 10, "image_size": (32, 32), **options})


def test_without_pooling_any_depth_fits() -> None:
    options = ConvNetOptions(n_classes=3, image_size=(4, 5), depth=6, width=4, pooling="none")
    assert ConvNet(options)(torch.zeros(2, 3, 4, 5)).shape == (2, 3)
