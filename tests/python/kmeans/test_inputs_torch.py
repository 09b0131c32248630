# SPDX-License-Identifier: Apache-2.0
"""Tensors give the result of a numpy array of the same values, as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern import QuantizeResult
from helpers.bits import ANSWER_FIELDS, assert_same_array_bits, assert_same_bits

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(1)
PLAIN = RNG.integers(0, 100, (60, 4, 5)).astype(np.float32)
GROUPS = RNG.integers(0, 3, 60)


def _quantize(x: Any) -> QuantizeResult:
    return ddkern.quantize(x, 3, groups=GROUPS, random_state=0)


def test_results_are_tensors() -> None:
    q = _quantize(torch.from_numpy(PLAIN))
    expected = _quantize(PLAIN)
    for name in ANSWER_FIELDS:
        value = getattr(q, name)
        parts = value if name == "distortion_history" else (value,)
        assert all(isinstance(part, torch.Tensor) for part in parts), name
    assert q.centroids.dtype == torch.float32
    assert q.weights.dtype == torch.float64
    assert q.assignment.dtype == torch.int64
    assert_same_bits(q, expected)


def test_results_can_be_written_to() -> None:
    centroids = _quantize(torch.from_numpy(PLAIN)).centroids
    centroids += 1
    assert_same_array_bits(centroids.numpy(), _quantize(PLAIN).centroids + 1, "centroids")


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64", "uint8", "int64"])
def test_types(name: str) -> None:
    x = torch.from_numpy(PLAIN).to(getattr(torch, name))
    wide = np.float64 if name in ("float64", "int64") else np.float32
    assert_same_bits(_quantize(x), _quantize(x.to(torch.float64).numpy().astype(wide)))


@pytest.mark.sanitize
def test_strided_bfloat16() -> None:
    x = torch.from_numpy(PLAIN).bfloat16()
    turned = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not turned.is_contiguous()
    assert_same_bits(_quantize(turned), _quantize(PLAIN))
    q = _quantize(x)
    found = ddkern.assign(turned, q.centroids, groups=GROUPS, centroid_groups=q.groups)
    assert torch.equal(found, q.assignment)


def test_gradients_are_left_behind() -> None:
    x = torch.from_numpy(PLAIN).requires_grad_()
    q = _quantize(x * 1)
    assert not q.centroids.requires_grad
    assert_same_bits(q, _quantize(PLAIN))


def test_batch_with_weights_and_init() -> None:
    x = torch.from_numpy(PLAIN).reshape(3, 20, 20)
    weight = torch.arange(60).reshape(3, 20)
    q = ddkern.quantize(x, 2, batch_dims=1, sample_weight=weight, init=x[:, :2])
    expected = ddkern.quantize(
        x.numpy(), 2, batch_dims=1, sample_weight=weight.numpy(), init=x[:, :2].numpy()
    )
    assert_same_bits(q, expected)


def test_input_is_not_changed() -> None:
    x = torch.from_numpy(PLAIN.copy())
    _quantize(x)
    np.testing.assert_array_equal(x.numpy(), PLAIN)
