# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels of the updates, compiled for the host, give the bits of the CPU's."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ddkern import kernel_calls  # noqa: E402
from ddkern.updates import axpy, sam_ascent  # noqa: E402
from helpers.matching import assert_same_values  # noqa: E402
from helpers.simt import load_simt, simt_options  # noqa: E402
from helpers.updates import SHAPES, assert_all_same_as_on_the_cpu, unusual  # noqa: E402


def through_simt(function: Any, tensors: tuple[Any, ...]) -> Any:
    with kernel_calls.use_module(load_simt()):
        return function(*tensors)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[int, ...]) -> None:
    assert_all_same_as_on_the_cpu(shape, through_simt)


@pytest.mark.parametrize("seed", [1, 2, 20])
def test_threads_in_any_order(seed: int) -> None:
    with simt_options(seed=seed, host_threads=1 + seed % 2):
        assert_all_same_as_on_the_cpu((3, 2049), through_simt)


def test_memory_that_begins_anywhere() -> None:
    def plain(x: Any, y: Any) -> Any:
        return axpy(x, 0.3, y)

    def adaptive(x: Any, y: Any) -> Any:
        return sam_ascent(x, rho=1.0, parameters=y)

    for offsets in ((1, 1), (0, 1), (4, 8), (3, 0)):
        x, y = (torch.randn(5003 + o)[o:] for o in offsets)
        for function in (plain, adaptive):
            assert_same_values(through_simt(function, (x, y)), function(x, y), str(offsets))


@pytest.mark.parametrize("a", [0.0, 1.0, 1e-30, 1e300, float("nan")])
def test_unusual_values(a: float) -> None:
    x = unusual().repeat(9)
    y = unusual().repeat_interleave(9)
    arguments = (x, torch.tensor(a, dtype=torch.float64), y)
    assert_same_values(through_simt(axpy, arguments), axpy(*arguments), str(a))
    rows = x.reshape(-1, 1)
    assert_same_values(
        through_simt(lambda g: sam_ascent(g, rho=0.1), (rows,)), sam_ascent(rows, rho=0.1), "sam"
    )
