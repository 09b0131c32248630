# SPDX-License-Identifier: Apache-2.0
"""The digest of weights: equal for equal weights, another for any other ones."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from ddkern.models import digest_of_weights, make_model  # noqa: E402


def _network(seed: int = 0) -> nn.Module:
    return make_model("convnet-d3", n_classes=3, image_size=16, seed=seed, width=8, norm="batch")


def test_digest_is_of_names_types_shapes_and_bytes() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[1.5, -2]])
        layer.bias[:] = 0.25
    expected = hashlib.sha256(
        b"weight torch.float32 (1, 2)"
        + np.array([1.5, -2], np.float32).tobytes()
        + b"bias torch.float32 (1,)"
        + np.array([0.25], np.float32).tobytes()
    )
    assert digest_of_weights(layer) == f"sha256:{expected.hexdigest()}"


def test_equal_weights_have_equal_digests() -> None:
    net = _network()
    net.train(not net.training)
    assert digest_of_weights(net) == digest_of_weights(_network())


@pytest.mark.parametrize("which", [0, -1])
def test_one_bit_of_a_parameter_counts(which: int) -> None:
    net = _network()
    with torch.no_grad():
        flat = list(net.parameters())[which].view(-1)
        flat[-1] = torch.nextafter(flat[-1], flat[-1] + 1)
    assert digest_of_weights(net) != digest_of_weights(_network())


def test_buffers_count() -> None:
    net = _network()
    next(net.buffers()).add_(1)
    assert digest_of_weights(net) != digest_of_weights(_network())


def test_layout_does_not_count() -> None:
    net = _network().to(memory_format=torch.channels_last)
    assert digest_of_weights(net) == digest_of_weights(_network())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_count(dtype: torch.dtype) -> None:
    assert digest_of_weights(_network().to(dtype)) != digest_of_weights(_network())


def test_network_without_weights() -> None:
    assert digest_of_weights(nn.ReLU()) == f"sha256:{hashlib.sha256().hexdigest()}"
