# SPDX-License-Identifier: Apache-2.0
"""An accelerated network is the same network: parameters, files, results, training."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

from ddkern import _core
from ddkern.models import accelerate, make_model
from ddkern.models.convnet import Blocks, norm_to_fuse


def network(**options: Any) -> Any:
    sizes = {"n_classes": 10, "image_size": 32, "seed": 0, **options}
    return make_model("convnet-d3", **sizes)


def batch(n: int = 6, side: int = 32, channels: int = 3) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, side, side, generator=generator), torch.arange(n) % 10


def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with each call of a kernel."""
    calls: list[str] = []
    for name in ("norm_relu_pool_forward", "norm_relu_pool_backward"):
        function = getattr(_core, name)

        def counted(function: Any = function, name: str = name, **arguments: Any) -> None:
            calls.append(name.rsplit("_", 1)[1])
            function(**arguments)

        monkeypatch.setattr(_core, name, counted)
    return calls


def logits_and_gradients(model: Any, bfloat16: bool = False, **sizes: int) -> Any:
    images, labels = batch(**sizes)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(images)
        loss = functional.cross_entropy(logits, labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return logits.detach().double(), [g.double() for g in gradients]


def distance(found: Any, expected: Any) -> float:
    return float((found - expected).norm() / expected.norm())


def test_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = kernel_calls(monkeypatch)
    model = network(width=8)
    logits_and_gradients(model)
    assert calls == []
    assert accelerate(model) is model
    logits_and_gradients(model)
    assert calls == ["forward"] * 3 + ["backward"] * 3
    accelerate(model, enabled=False)
    logits_and_gradients(model)
    assert len(calls) == 6


# Relative to float64, both have the errors of float32 convolutions. A bias of a convolution in
# front of a norm has the gradient 0, of which only rounding is left.
def without_zeros(model: Any, gradients: list[Any]) -> list[Any]:
    zero = {f"features.{i}.bias" for i, m in enumerate(model.features) if isinstance(m, nn.Conv2d)}
    names = [name for name, _ in model.named_parameters()]
    return [g for name, g in zip(names, gradients, strict=True) if name not in zero]


def in_float64(**sizes: Any) -> Any:
    model = network(width=32, in_channels=sizes.get("channels", 3)).double()
    images, labels = batch(**sizes)
    logits = model(images.double())
    loss = functional.cross_entropy(logits, labels)
    return logits.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("channels", [1, 3])
def test_results(isa: str, channels: int) -> None:
    logits, gradients = in_float64(channels=channels)
    model = accelerate(network(width=32, in_channels=channels))
    found_logits, found = logits_and_gradients(model, channels=channels)
    assert distance(found_logits, logits) < 1e-5
    pairs = zip(without_zeros(model, found), without_zeros(model, gradients), strict=True)
    assert max(distance(value, right) for value, right in pairs) < 1e-4


def test_bfloat16_is_as_good_as_with_plain_layers(isa: str) -> None:
    logits, gradients = in_float64()
    errors = []
    for model in (network(width=32), accelerate(network(width=32))):
        found_logits, found = logits_and_gradients(model, bfloat16=True)
        pairs = zip(without_zeros(model, found), without_zeros(model, gradients), strict=True)
        errors.append([distance(found_logits, logits), *(distance(v, r) for v, r in pairs)])
    plain, fused = errors
    # Most of both comes from the convolutions and from what their rounding does to the masks: noise
    # of one size, while the kernel's own bound is tested with it.
    assert all(error < 2 * other for error, other in zip(fused, plain, strict=True))


def test_nothing_visible_changes() -> None:
    plain, fused = network(), accelerate(network())
    assert sum(p.numel() for p in fused.parameters()) == 320_010
    assert repr(plain) == repr(fused)
    for (name, value), (other, same) in zip(
        plain.state_dict().items(), fused.state_dict().items(), strict=True
    ):
        assert name == other
        assert value.stride() == same.stride()
        assert torch.equal(value, same)
    assert torch.equal(
        parameters_to_vector(plain.parameters()), parameters_to_vector(fused.parameters())
    )


def test_state_dictionaries_fit_both_ways() -> None:
    images, _ = batch()
    for make, load in ((accelerate, lambda m: m), (lambda m: m, accelerate)):
        source, target = make(network(seed=3, width=8)), load(network(seed=4, width=8))
        target.load_state_dict(source.state_dict())
        torch.testing.assert_close(target(images), source(images))


def test_steps_of_training_agree() -> None:
    plain, fused = network(width=32), accelerate(network(width=32))
    images, labels = batch(16)
    losses = []
    for model in (plain, fused):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        seen = []
        for _ in range(5):
            optimiser.zero_grad()
            loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimiser.step()
            seen.append(float(loss.detach()))
        losses.append(seen)
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for value, right in zip(fused.parameters(), plain.parameters(), strict=True):
        assert (value - right).abs().max() < 1e-4


def test_unrolled_steps_can_be_differentiated() -> None:
    images, labels = batch(4)
    gradients = []
    for model in (network(width=8), accelerate(network(width=8))):
        x = images.clone().requires_grad_()
        weights = dict(model.named_parameters())
        loss = functional.cross_entropy(functional_call(model, weights, (x,)), labels)
        steps = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        moved = {
            name: weight - 0.1 * step
            for (name, weight), step in zip(weights.items(), steps, strict=True)
        }
        later = functional.cross_entropy(functional_call(model, moved, (images,)), labels)
        gradients.append(torch.autograd.grad(later, x)[0].double())
    assert gradients[0].norm() > 0
    assert distance(gradients[1], gradients[0]) < 1e-3


def test_copies_stay_accelerated() -> None:
    model = accelerate(network(width=8))
    images, _ = batch()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own
        assert again.features.fused
        assert torch.equal(again(images), model(images))


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "batch"},
        {"norm": "layer"},
        {"norm": "group"},
        {"norm": "none"},
        {"activation": "sigmoid"},
        {"pooling": "max"},
        {"pooling": "none"},
    ],
)
def test_other_forms_of_the_network_are_left_alone(options: dict[str, Any]) -> None:
    model = network(width=8, image_size=8, **options)
    images, _ = batch(side=8)
    expected = model(images)
    accelerate(model)
    assert not model.features.fused
    assert torch.equal(model(images), expected)


@pytest.mark.parametrize("name", ["resnet-18", "vgg-11"])
def test_other_networks_are_left_alone(name: str) -> None:
    model = make_model(name, n_classes=10, image_size=32, seed=0)
    before = {key: value.stride() for key, value in model.state_dict().items()}
    accelerate(model)
    assert {key: value.stride() for key, value in model.state_dict().items()} == before


def test_a_network_inside_another_is_found() -> None:
    model = nn.Sequential(nn.Identity(), network(width=8))
    assert accelerate(model)[1].features.fused
    assert not accelerate(model, enabled=False)[1].features.fused


def test_other_dtypes_and_layers_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = kernel_calls(monkeypatch)
    model = network(width=8).double()
    images, _ = batch()
    expected = model(images.double())
    torch.testing.assert_close(accelerate(model)(images.double()), expected)
    model = network(width=8)
    model.features[6] = nn.Tanh()  # the ReLU of the second block
    expected = model(images)
    assert calls == []
    torch.testing.assert_close(accelerate(model)(images), expected)
    assert calls == ["forward"] * 2


class Softer(nn.ReLU):
    def forward(self, input: Any) -> Any:  # noqa: A002 - the name in torch
        return functional.softplus(input)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.GroupNorm(4, 8), nn.ReLU(), nn.AvgPool2d(2)],
        [nn.GroupNorm(8, 8, affine=False), nn.ReLU(), nn.AvgPool2d(2)],
        [nn.GroupNorm(8, 8), Softer(), nn.AvgPool2d(2)],
        [nn.GroupNorm(8, 8), nn.ReLU(), nn.AvgPool2d(3)],
        [nn.GroupNorm(8, 8), nn.ReLU(), nn.AvgPool2d(2, stride=1)],
        [nn.GroupNorm(8, 8), nn.ReLU(), nn.AvgPool2d(2, padding=1)],
        [nn.GroupNorm(8, 8), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True)],
        [nn.GroupNorm(8, 8), nn.ReLU(), nn.AvgPool2d(2, divisor_override=3)],
        [nn.GroupNorm(8, 8), nn.ReLU()],
        [],
    ],
)
def test_what_the_kernel_does_not_compute(layers: list[nn.Module]) -> None:
    fitting = [nn.GroupNorm(8, 8), nn.ReLU(), nn.AvgPool2d(2)]
    assert norm_to_fuse(fitting) is fitting[0]
    assert norm_to_fuse(layers) is None
    assert not Blocks(*layers).can_fuse()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("convnet-d3",), "model is a str"), ((nn.ReLU(), 1), "enabled is a int")],
)
def test_arguments_are_checked(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        accelerate(*arguments)
