# SPDX-License-Identifier: Apache-2.0
"""Networks of one vector each, several as one computation."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from ddkern.models import FlatNetwork, accelerate, make_model  # noqa: E402

SHAPE = {"n_classes": 3, "image_size": 8, "in_channels": 3}


def convnet(norm: str, dtype: torch.dtype) -> nn.Module:
    return make_model("convnet-d3", width=4, norm=norm, seed=0, **SHAPE).to(dtype)


def parameters_and_inputs(network: FlatNetwork, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    parameters = torch.randn(3, network.n_parameters, generator=generator, dtype=dtype)
    return parameters, torch.randn(5, 3, 8, 8, generator=generator, dtype=dtype)


@pytest.mark.parametrize("norm", ["instance", "batch", "layer"])
def test_several_networks_are_those_one_by_one(norm: str) -> None:
    model = convnet(norm, torch.float64).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = FlatNetwork(model)
    parameters, inputs = parameters_and_inputs(network, torch.float64)
    found = network(parameters, inputs)
    assert found.shape == (3, 5, 3)
    torch.testing.assert_close(found, torch.stack([network(one, inputs) for one in parameters]))
    assert torch.equal(network(parameters[:1], inputs)[0], network(parameters[0], inputs))
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_fused_layers_are_plain_for_several_networks_alone() -> None:
    model = accelerate(convnet("instance", torch.float32))
    network = FlatNetwork(model)
    parameters, inputs = parameters_and_inputs(network, torch.float32)
    found = network(parameters, inputs)
    assert model.features.fused
    expected = torch.stack([network(one, inputs) for one in parameters])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(RuntimeError, match="channels"):
        network(parameters, inputs[:, :2])
    assert model.features.fused
