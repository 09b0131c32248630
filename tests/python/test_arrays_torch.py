# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from ddkern.arrays import to_host

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    "name", ["float64", "float32", "float16", "int64", "int32", "int16", "uint8", "bool"]
)
def test_tensor_is_seen_in_place(name: str) -> None:
    x = torch.ones((3, 4), dtype=getattr(torch, name))
    host = to_host(x, "x")
    assert host.values.ctypes.data == x.data_ptr()
    assert host.dtype_name == name
    assert isinstance(host.wrap(np.zeros(2)), torch.Tensor)


@pytest.mark.sanitize
def test_bfloat16_travels_as_bits() -> None:
    x = torch.tensor([[1.5, -2.0], [0.0, 3e38]]).bfloat16()
    host = to_host(x.T, "x")
    assert host.bfloat16
    assert host.dtype_name == "bfloat16"
    assert host.values.dtype == np.uint16
    assert host.values.ctypes.data == x.data_ptr()
    assert host.point_dtype == np.float32
    assert not host.is_integer
    np.testing.assert_array_equal(host.as_dtype(np.float32), x.T.float().numpy())
    np.testing.assert_array_equal(host.as_dtype(np.float64), x.T.double().numpy())


def test_gradient_is_left_behind() -> None:
    x = torch.ones(3, requires_grad=True)
    assert to_host(x * 2, "x").values.tolist() == [2, 2, 2]


def test_other_device() -> None:
    with pytest.raises(TypeError, match=r"x lies on meta, .*: pass x.cpu\(\)"):
        to_host(torch.ones(3, device="meta"), "x")


def test_sparse() -> None:
    with pytest.raises(TypeError, match="x has layout torch.sparse_coo"):
        to_host(torch.eye(3).to_sparse(), "x")


@pytest.mark.parametrize("name", ["complex64", "float8_e4m3fn"])
def test_unsupported(name: str) -> None:
    x = torch.zeros(2, dtype=getattr(torch, name))
    with pytest.raises(TypeError, match=rf"x has dtype (torch\.)?{name}; supported are"):
        to_host(x, "x")
