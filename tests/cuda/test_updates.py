# SPDX-License-Identifier: Apache-2.0
"""Steps of optimisers in the memory of a GPU have the bits of the CPU, and never wait."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ddkern import kernel_calls  # noqa: E402
from ddkern.updates import axpy, ema, sam_ascent, sgd_step  # noqa: E402
from helpers.cuda import reason_to_skip  # noqa: E402
from helpers.matching import assert_same_values  # noqa: E402
from helpers.updates import SHAPES, assert_all_same_as_on_the_cpu, unusual  # noqa: E402

REASON = reason_to_skip("linear_update")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(REASON), reason=REASON or "never"),
]


def on_cuda(function: Any, tensors: tuple[Any, ...]) -> Any:
    return function(*[x.cuda() for x in tensors])


def test_the_kernels_are_in_use() -> None:
    assert kernel_calls.module_for(torch.zeros(1, device="cuda")) is not None


@pytest.mark.parametrize("shape", [*SHAPES, (4, 1_000_003)], ids=str)
def test_shapes(shape: tuple[int, ...]) -> None:
    assert_all_same_as_on_the_cpu(shape, on_cuda)


def test_unusual_values() -> None:
    x, y = unusual().repeat(9), unusual().repeat_interleave(9)
    assert_same_values(on_cuda(lambda a, b: axpy(a, 1e-30, b), (x, y)), axpy(x, 1e-30, y), "axpy")
    rows = x.reshape(-1, 1)
    found = on_cuda(lambda g: sam_ascent(g, rho=0.1), (rows,))
    assert_same_values(found, sam_ascent(rows, rho=0.1), "sam")


def test_nothing_waits_and_a_graph_can_be_captured() -> None:
    theta, velocity, gradient = (torch.randn(3, 5000, device="cuda") for _ in range(3))
    lr = torch.tensor(0.1, device="cuda")

    def work() -> list[Any]:
        new, speed = sgd_step(theta, velocity, gradient, lr=lr, momentum=0.9)
        up = sam_ascent(gradient, rho=0.05, parameters=theta)
        return [new, speed, up, axpy(theta, lr, up), ema(theta, new, decay=0.9)]

    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        captured = work()
    theta.mul_(1.5)
    lr.fill_(0.3)
    graph.replay()
    for i, (x, y) in enumerate(zip(captured, work(), strict=True)):
        assert_same_values(x, y, f"{i} of the graph")
