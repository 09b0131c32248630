# SPDX-License-Identifier: Apache-2.0
"""Every layout, dtype and library gives the result of a plain numpy array of the same values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern import QuantizeResult
from helpers.bits import assert_same_array_bits, assert_same_bits

RNG = np.random.default_rng(1)
PLAIN = RNG.integers(0, 100, (60, 4, 5)).astype(np.float32)
GROUPS = RNG.integers(0, 3, 60)


def _quantize(x: Any, **options: Any) -> QuantizeResult:
    return ddkern.quantize(x, 3, groups=GROUPS, random_state=0, **options)


def _reversed(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1]


def _strided(x: np.ndarray) -> np.ndarray:
    wide = np.full((120, 4, 10), np.nan, x.dtype)
    wide[::2, :, 1::2] = x
    return wide[::2, :, 1::2]


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def _unaligned(x: np.ndarray) -> np.ndarray:
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    view = buffer[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "fortran": np.asfortranarray,
    "transposed": lambda x: np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0),
    "negative strides": _reversed,
    "strided": _strided,
    "read-only": _read_only,
    "unaligned": _unaligned,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.sanitize
def test_layout(layout: str) -> None:
    x = LAYOUTS[layout](PLAIN)
    np.testing.assert_array_equal(x, PLAIN)
    q = _quantize(x)
    assert_same_bits(q, _quantize(PLAIN))
    found = ddkern.assign(x, q.centroids, groups=GROUPS, centroid_groups=q.groups)
    assert_same_array_bits(found, q.assignment, "assignment")
    seeds = ddkern.seed_centroids(x, 3, groups=GROUPS, random_state=0)
    assert_same_array_bits(seeds.centroids, PLAIN[seeds.indices], "seeds")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_a_batch(layout: str) -> None:
    x = LAYOUTS[layout](PLAIN).transpose(0, 2, 1)
    q = ddkern.quantize(x, 2, batch_dims=1, random_state=0)
    plain = np.ascontiguousarray(PLAIN.transpose(0, 2, 1))
    assert_same_bits(q, ddkern.quantize(plain, 2, batch_dims=1, random_state=0))


def test_broadcast_rows() -> None:
    x = np.broadcast_to(np.arange(3.0), (10, 3))
    q = ddkern.quantize(x, 1, random_state=0)
    assert q.centroids.tolist() == [[0, 1, 2]]


def test_memory_map(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, PLAIN)
    q = _quantize(np.load(path, mmap_mode="r"))
    assert type(q.centroids) is np.ndarray
    assert_same_bits(q, _quantize(PLAIN))


@pytest.mark.parametrize("dtype", ["b", "B", "h", "H", "e", "f"])
@pytest.mark.sanitize
def test_types_that_float32_holds(dtype: str) -> None:
    assert_same_bits(_quantize(PLAIN.astype(dtype)), _quantize(PLAIN))


@pytest.mark.parametrize("dtype", ["i", "I", "q", "Q", "d"])
@pytest.mark.sanitize
def test_types_that_need_float64(dtype: str) -> None:
    q = _quantize(PLAIN.astype(dtype))
    assert q.centroids.dtype == np.float64
    assert_same_bits(q, _quantize(PLAIN.astype(np.float64)))


def test_bool() -> None:
    x = PLAIN > 50
    assert_same_bits(_quantize(x), _quantize(x.astype(np.float32)))


def test_nested_lists() -> None:
    q = _quantize(PLAIN.astype(np.float64).tolist())
    assert_same_bits(q, _quantize(PLAIN.astype(np.float64)))


def test_arguments_may_be_lists_and_tensors() -> None:
    torch = pytest.importorskip("torch")
    weight = RNG.integers(1, 4, 60)
    expected = ddkern.quantize(PLAIN, 3, groups=GROUPS, sample_weight=weight, random_state=0)
    for convert in (np.ndarray.tolist, torch.from_numpy):
        q = ddkern.quantize(
            PLAIN, 3, groups=convert(GROUPS), sample_weight=convert(weight), random_state=0
        )
        assert_same_bits(q, expected)


class DlpackOnly:
    """An array of a library that offers DLPack and nothing else."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def test_dlpack() -> None:
    assert_same_bits(_quantize(DlpackOnly(PLAIN)), _quantize(PLAIN))
