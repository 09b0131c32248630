# SPDX-License-Identifier: Apache-2.0
"""make_model: names, factories, modules, and where the weights come from."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from ddkern.models import ConvNet, make_model, model_names

FACTS: dict[str, Any] = {"n_classes": 4, "image_size": 16}


def weights(model: Any) -> Any:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_names_are_listed_for_an_unknown_one() -> None:
    with pytest.raises(ValueError, match="model='convnet'; the names are alexnet, convnet-d3") as e:
        make_model("convnet", **FACTS)
    assert all(name in str(e.value) for name in model_names())


@pytest.mark.parametrize("name", ["alexnet", "convnet-d3", "convnet-d4", "mlp", "resnet-18"])
def test_own_names(name: str) -> None:
    model = make_model(name, in_channels=2, n_classes=7, image_size=(16, 18))
    assert model.training
    assert model(torch.zeros(2, 2, 16, 18)).shape == (2, 7)
    assert model.options.image_size == (16, 18)


def test_options_reach_the_network() -> None:
    model = make_model("convnet-d4", width=16, norm="batch", **FACTS)
    assert isinstance(model, ConvNet)
    assert (model.options.depth, model.options.width, model.options.norm) == (4, 16, "batch")


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("convnet-d3", {"depth": 4}, "depth is no option of convnet-d3; it takes activation, norm"),
        ("convnet-d3", {"widht": 4}, "widht is no option of convnet-d3"),
        ("alexnet", {"norm": "batch"}, "norm is no option of alexnet; it takes none"),
    ],
)
def test_unknown_options(name: str, option: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_model(name, **FACTS, **option)


def test_a_seed_fixes_the_weights_and_nothing_else() -> None:
    before = torch.random.get_rng_state()
    first = weights(make_model("convnet-d3", seed=5, **FACTS))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(weights(make_model("convnet-d3", seed=5, **FACTS)), first)
    assert not torch.equal(weights(make_model("convnet-d3", seed=6, **FACTS)), first)


def test_seeded_weights_are_those_of_torch_after_that_seed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2**64 - 1)
        expected = weights(torch.nn.Conv2d(3, 128, 3, padding=1))
    seeded = make_model("convnet-d3", seed=2**64 - 1, **FACTS)
    assert torch.equal(weights(seeded)[: len(expected)], expected)


def test_no_seed_means_the_global_generator() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first, second = (weights(make_model("convnet-d3", **FACTS)) for _ in range(2))
        torch.manual_seed(1)
        again = weights(make_model("convnet-d3", **FACTS))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_generator_gives_one_network_after_another() -> None:
    before = torch.random.get_rng_state()
    generator = torch.Generator().manual_seed(3)
    pair = [weights(make_model("convnet-d3", seed=generator, **FACTS)) for _ in range(2)]
    assert not torch.equal(*pair)
    generator = torch.Generator().manual_seed(3)
    for expected in pair:
        again = weights(make_model("convnet-d3", seed=generator, **FACTS))
        assert torch.equal(again, expected)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("name", "side"), [("alexnet", 8), ("resnet-18", 9), ("vgg-11", 32)])
def test_several_networks_at_once_as_one_by_one(name: str, side: int) -> None:
    facts: dict[str, Any] = {"n_classes": 3, "image_size": side}
    models = [make_model(name, seed=seed, **facts).double() for seed in range(2)]
    parameters, buffers = torch.func.stack_module_state(models)
    assert buffers == {}
    x = torch.randn(2, 3, side, side, dtype=torch.float64)

    def logits(values: Any) -> Any:
        return torch.func.functional_call(models[0], values, (x,))

    together = torch.func.vmap(logits)(parameters)
    for i, model in enumerate(models):
        torch.testing.assert_close(together[i], model(x))


def test_a_failing_build_gives_the_generator_back() -> None:
    def fails() -> Any:
        torch.rand(3)
        raise RuntimeError("no network today")

    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError, match="no network today"):
        make_model(fails, seed=0, **FACTS)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seeded_weights_do_not_follow_the_default_device() -> None:
    with torch.device("meta"):
        model = make_model("convnet-d3", seed=5, **FACTS)
    assert torch.equal(weights(model), weights(make_model("convnet-d3", seed=5, **FACTS)))


def test_a_module_is_returned_as_it_is() -> None:
    module = torch.nn.Linear(3, 4)
    assert make_model(module, **FACTS) is module
    for extra in ({"seed": 0}, {"width": 3}):
        with pytest.raises(ValueError, match="model is a Linear that has its weights already"):
            make_model(module, **FACTS, **extra)


class Linear(torch.nn.Module):
    def __init__(self, n_classes: int, image_size: tuple[int, int], bias: bool = True) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3 * image_size[0] * image_size[1], n_classes, bias=bias)


def test_factories_get_the_facts_that_they_name() -> None:
    assert make_model(Linear, **FACTS).layer.weight.shape == (4, 3 * 256)
    assert make_model(Linear, bias=False, **FACTS).layer.bias is None
    assert make_model(lambda: torch.nn.Linear(2, 3), **FACTS).weight.shape == (3, 2)
    one = make_model(lambda n_classes: torch.nn.Linear(2, n_classes), **FACTS)
    assert one.weight.shape == (4, 2)
    seen: dict[str, Any] = {}

    def takes_all(**facts: Any) -> Any:
        seen.update(facts)
        return torch.nn.Identity()

    make_model(takes_all, extra=1, **FACTS)
    assert seen == {"in_channels": 3, "n_classes": 4, "image_size": (16, 16), "extra": 1}


def test_factories_are_seeded() -> None:
    pair = [weights(make_model(Linear, seed=4, **FACTS)) for _ in range(2)]
    assert torch.equal(*pair)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (3, TypeError, "model is a int; it must be a name, a callable"),
        (lambda: 3, TypeError, "model returned a int; it must return an nn.Module"),
    ],
)
def test_other_models(model: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_model(model, **FACTS)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"seed": 0.0}, TypeError, "seed=0.0 is a float"),
        ({"n_classes": 0}, ValueError, "n_classes=0"),
        ({"image_size": 7}, ValueError, r"image_size=\(7, 7\); ConvNet of depth 3"),
    ],
)
def test_arguments_are_checked(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_model("convnet-d3", **{**FACTS, **arguments})
