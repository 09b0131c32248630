# SPDX-License-Identifier: Apache-2.0
"""Losses between parameters in the memory of a GPU have the bits of the CPU, and never wait."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ddkern import kernel_calls  # noqa: E402
from ddkern.losses import trajectory_distance, trajectory_distance_reference  # noqa: E402
from helpers.cuda import on_cuda, reason_to_skip  # noqa: E402
from helpers.matching import (  # noqa: E402
    BLOCK,
    DTYPES,
    GROUPED,
    LISTS,
    assert_same_as_on_the_cpu,
    assert_same_values,
    draw,
    grouped,
    of_one_total,
    special,
)

REASON = reason_to_skip("trajectory_sums")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(REASON), reason=REASON or "never"),
]

OPS = torch.ops.ddkern
SUMS, DIFFERENCE = of_one_total(OPS.trajectory_sums), of_one_total(OPS.scaled_difference)
ABSOLUTE = of_one_total(OPS.absolute_sums)
FACTOR = torch.tensor(-1.7, dtype=torch.float64)


def test_the_kernels_are_in_use() -> None:
    assert kernel_calls.module_for(torch.zeros(1, device="cuda")) is not None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LISTS)
def test_lists(name: str, dtype: torch.dtype) -> None:
    student, target, start = (draw(LISTS[name], dtype, seed) for seed in range(3))
    assert_same_as_on_the_cpu(SUMS, [student, target, start], on_cuda)
    assert_same_as_on_the_cpu(SUMS, [student, target, []], on_cuda)
    assert_same_as_on_the_cpu(ABSOLUTE, [student, target], on_cuda)
    assert_same_as_on_the_cpu(DIFFERENCE, [student, target, FACTOR], on_cuda)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GROUPED)
def test_several_totals(name: str, dtype: torch.dtype) -> None:
    lists, groups, batch_dims = grouped(name, dtype)
    totals = OPS.trajectory_sums(*lists, groups, batch_dims)[0]
    factors = torch.randn(totals.shape, dtype=torch.float64)
    for starts in (lists[2], []):
        assert_same_as_on_the_cpu(
            OPS.trajectory_sums, [*lists[:2], starts, groups, batch_dims], on_cuda
        )
    assert_same_as_on_the_cpu(OPS.absolute_sums, [*lists[:2], groups, batch_dims], on_cuda)
    assert_same_as_on_the_cpu(
        OPS.scaled_difference, [*lists[:2], factors, groups, batch_dims], on_cuda
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails(dtype: torch.dtype) -> None:
    for n in range(1, 71):
        student, target, start = (draw([n], dtype, 3 * n + seed) for seed in range(3))
        assert_same_as_on_the_cpu(SUMS, [student, target, start], on_cuda)
        assert_same_as_on_the_cpu(ABSOLUTE, [student, target], on_cuda)
        assert_same_as_on_the_cpu(DIFFERENCE, [student, target, FACTOR], on_cuda)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offsets", [(1, 1), (0, 1), (8, 8), (3, 0)])
def test_memory_that_begins_anywhere(offsets: tuple[int, int], dtype: torch.dtype) -> None:
    a, b = (draw([5000, 33, 4096], dtype, seed, offset) for seed, offset in enumerate(offsets))
    assert_same_as_on_the_cpu(SUMS, [a, b, []], on_cuda)
    assert_same_as_on_the_cpu(ABSOLUTE, [a, b], on_cuda)
    assert_same_as_on_the_cpu(DIFFERENCE, [a, b, FACTOR], on_cuda)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unusual_values(dtype: torch.dtype) -> None:
    a, b = special(dtype)
    for factor in (1.0, -0.0, 1e-30, 1e300, float("nan")):
        scale = torch.tensor(factor, dtype=torch.float64)
        assert_same_as_on_the_cpu(DIFFERENCE, [a, b, scale], on_cuda)
    assert_same_as_on_the_cpu(SUMS, [a, b, []], on_cuda)
    assert_same_as_on_the_cpu(ABSOLUTE, [a, b], on_cuda)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_tensors(dtype: torch.dtype) -> None:
    lists = [draw([5_000_011, 2_000_000, 3 * BLOCK], dtype, seed) for seed in range(3)]
    assert_same_as_on_the_cpu(SUMS, lists, on_cuda)
    assert_same_as_on_the_cpu(DIFFERENCE, [*lists[:2], FACTOR], on_cuda)


@pytest.mark.parametrize("dtype", DTYPES)
def test_derivatives(dtype: torch.dtype) -> None:
    def gradients(lists: list[list[Any]]) -> list[Any]:
        distance = 3 * trajectory_distance(*lists)
        return [distance.detach(), *torch.autograd.grad(distance, [x for xs in lists for x in xs])]

    lists = [draw([350, 7, 21_000], dtype, seed) for seed in range(3)]
    found = gradients([[x.cuda().requires_grad_() for x in xs] for xs in lists])
    expected = gradients([[x.requires_grad_() for x in xs] for xs in lists])
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        assert_same_values(x, y, f"gradient {i}")


def test_other_dtypes_go_through_torch() -> None:
    for dtype in (torch.float64, torch.float16):
        lists = [[x.cuda() for x in draw([70, 3000], dtype, seed)] for seed in range(3)]
        found, expected = trajectory_distance(*lists), trajectory_distance_reference(*lists)
        torch.testing.assert_close(found, expected)


def test_the_order_of_the_stream_is_kept() -> None:
    student, target, start = (
        [x.cuda() for x in draw([1 << 22], torch.float32, s)] for s in (0, 1, 2)
    )
    expected = trajectory_distance([student[0] + 1], target, start).item()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        student[0].add_(1)
        found = trajectory_distance(student, target, start)
    stream.synchronize()
    assert found.item() == expected


def test_nothing_waits_for_the_device() -> None:
    lists = [
        [x.cuda().requires_grad_() for x in draw([70, 3000], torch.float32, s)] for s in range(3)
    ]
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(trajectory_distance(*lists), lists[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_graph_can_be_captured() -> None:
    def work() -> list[Any]:
        distance = trajectory_distance(*lists)
        return [distance.detach(), *torch.autograd.grad(distance, lists[0])]

    lists = [[x.cuda() for x in draw(LISTS["network"], torch.float32, s)] for s in range(3)]
    for x in lists[0]:
        x.requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = work()
    with torch.no_grad():
        for x in lists[0]:
            x.mul_(1.5)
    graph.replay()
    for i, (x, y) in enumerate(zip(captured, work(), strict=True)):
        assert_same_values(x, y, f"{i} of the graph")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_the_current_one() -> None:
    lists = [draw([70, 3000], torch.float32, seed) for seed in range(3)]
    expected = trajectory_distance(*lists)
    found = trajectory_distance(*[[x.to("cuda:1") for x in xs] for xs in lists])
    assert found.device.index == 1
    assert torch.cuda.current_device() == 0
    assert found.item() == expected.item()
