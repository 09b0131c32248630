# SPDX-License-Identifier: Apache-2.0
"""Losses of gradients and features on a GPU: sums have the bits of the CPU, and nothing waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ddkern import kernel_calls  # noqa: E402
from ddkern.losses import (  # noqa: E402
    gradient_distance,
    gradient_distance_reference,
    mean_distance,
    mean_distance_reference,
    mmd,
    mmd_bandwidths,
    mmd_reference,
)
from helpers.cuda import on_cuda, reason_to_skip  # noqa: E402
from helpers.losses import (  # noqa: E402
    COMBINATION,
    LOSSES,
    MANY_RATES,
    MATRICES,
    MEANS,
    MMD,
    PRODUCTS,
    RATES,
    SEGMENTS,
    SETS,
    assert_gradients_agree,
    assert_sets_agree,
    derivatives,
    factors,
    labels_of,
    matrices,
    points,
    unusual_matrices,
)
from helpers.matching import (  # noqa: E402
    BLOCK,
    DTYPES,
    assert_same_as_on_the_cpu,
    assert_same_values,
)

REASON = reason_to_skip("mmd_pull")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(REASON), reason=REASON or "never"),
]


def test_the_kernels_are_in_use() -> None:
    assert kernel_calls.module_for(torch.zeros(1, device="cuda")) is not None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MATRICES)
def test_matrices(name: str, dtype: torch.dtype) -> None:
    assert_gradients_agree(*(matrices(MATRICES[name], dtype, seed) for seed in range(2)), on_cuda)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_matrices(dtype: torch.dtype) -> None:
    shapes = [(512, 4608), (1, 11_000_003), (70_000, 27), (2_000_003, 1)]
    assert_gradients_agree(*(matrices(shapes, dtype, seed) for seed in range(2)), on_cuda)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offsets", [(1, 1), (0, 1), (8, 8), (3, 0)])
def test_matrices_that_begin_anywhere(offsets: tuple[int, int], dtype: torch.dtype) -> None:
    shapes = [(7, 600), (33, 1), (2, 4097)]
    a, b = (matrices(shapes, dtype, seed, offset) for seed, offset in enumerate(offsets))
    assert_gradients_agree(a, b, on_cuda)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unusual_values_of_rows(dtype: torch.dtype) -> None:
    assert_gradients_agree(*unusual_matrices(dtype), on_cuda)


# Both products are rounded, so that nothing is left; that they were not would show here alone.
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_that_cancel(dtype: torch.dtype) -> None:
    a = matrices([(7, 600), (50, 3)], dtype, 0)
    of, _ = factors(a)
    assert_same_as_on_the_cpu(COMBINATION, [a, a, of, -of], on_cuda)
    assert not any(x.any() for x in on_cuda(COMBINATION, [a, a, of, -of]))


@pytest.mark.parametrize("shape", [*SEGMENTS, (50_000, 257, 100), (3000, 2048, 10)], ids=str)
def test_segments(shape: tuple[int, int, int]) -> None:
    n, n_features, n_classes = shape
    values, labels = points(n, n, n_features), labels_of(n, n_classes)
    assert_same_as_on_the_cpu(MEANS, [values, labels, n_classes, "labels"], on_cuda)


def test_labels_that_nobody_looks_at() -> None:
    values, labels = points(0, 3000, 5), labels_of(3000, 4)
    found = on_cuda(MEANS, [values, labels, 6, "labels"])
    assert_same_values(found[:4], MEANS(values, labels, 4, "labels"), "classes with rows")
    assert found[4:].isnan().all()
    labels[2999] = 4
    x = values.cuda().requires_grad_()
    means = MEANS(x, labels.cuda(), 4, "labels")
    assert means.isnan().all()
    (gradient,) = torch.autograd.grad(means.square().sum(), x)
    assert gradient.isnan().all()


@pytest.mark.parametrize(
    "shape", [*SETS, (50, 256, 2048), (700, 900, 100), (1500, 1600, 33)], ids=str
)
def test_sets(shape: tuple[int, int, int]) -> None:
    n, m, n_features = shape
    assert_sets_agree(points(0, n, n_features), points(1, m, n_features), on_cuda)


def test_sets_of_any_size() -> None:
    for size in range(1, 71):
        assert_sets_agree(points(size, size, 5), points(1, 71 - size, 5), on_cuda)
        assert_sets_agree(points(size, 3, size), points(1, 4, size), on_cuda)


@pytest.mark.parametrize("offsets", [(1, 1), (0, 1), (4, 8), (3, 0)])
def test_points_that_begin_anywhere(offsets: tuple[int, int]) -> None:
    for n_features in (64, 67):
        x, y = (points(seed, 20, n_features, offset) for seed, offset in enumerate(offsets))
        assert_sets_agree(x, y, on_cuda)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38, 1e-40])
def test_unusual_points(value: float) -> None:
    x, y = points(0, 40, 9), points(1, 20, 9)
    x[17, 8] = value
    assert_sets_agree(x, y, on_cuda)
    x[:, 8] = value
    assert_sets_agree(x, y, on_cuda)


# What is left of a pull is the rounding of its float64 terms, which float32 would hide otherwise.
def test_terms_that_cancel() -> None:
    y = points(0, 21, 9)
    assert_sets_agree(torch.zeros(5, 9), torch.cat([y, -y]), on_cuda)


def test_the_exponential_over_its_range() -> None:
    distances = torch.cat([torch.linspace(0, 27, 6000), torch.tensor([26.6, 26.7, 40.0, 1e18])])
    x = torch.zeros(1, 1)
    assert_sets_agree(x, distances[:, None], on_cuda, torch.ones(1, dtype=torch.float64))


def test_rates_on_the_host_and_on_the_device() -> None:
    x, y = points(0, 20, 9), points(1, 18, 9)
    assert_sets_agree(x, y, on_cuda, MANY_RATES)
    assert_sets_agree(x, y, on_cuda, RATES)
    found = MMD(x.cuda(), y.cuda(), RATES)
    assert_same_values(found, MMD(x, y, RATES), "rates on the host")


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives(name: str) -> None:
    labels = labels_of(21, 3)
    sets = [points(seed, 21, 70) for seed in range(2)]
    found = derivatives(name, [x.cuda() for x in sets], labels.cuda())
    # Roots, quotients and last sums are torch's, which may order them otherwise.
    for x, y in zip(found, derivatives(name, sets, labels), strict=True):
        torch.testing.assert_close(x.cpu(), y, rtol=1e-6, atol=1e-9)


def test_other_dtypes_go_through_torch() -> None:
    for dtype in (torch.float64, torch.float16):
        x, y = (points(seed, 21, 70).to(dtype).cuda() for seed in range(2))
        labels = labels_of(21, 3).cuda()
        pairs: list[tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = [
            (gradient_distance, gradient_distance_reference, (x, y)),
            (mean_distance, mean_distance_reference, (x, y, labels, labels)),
            (mmd, mmd_reference, (x, y, 1.5)),
        ]
        for kernel, reference, arguments in pairs:
            torch.testing.assert_close(kernel(*arguments), reference(*arguments))


def _work() -> Callable[[], list[Any]]:
    """A function that takes every kernel, on tensors that stay where they are."""
    a, b = ([x.cuda() for x in matrices(MATRICES["network"], torch.float32, s)] for s in range(2))
    long = [x.cuda() for x in matrices([(2, 2 * BLOCK)], torch.float32, 2)]
    x, y = (points(seed, 40, 70).cuda() for seed in range(2))
    labels = labels_of(40, 3).cuda()
    bandwidths = mmd_bandwidths(x, y)
    variables = [*a, long[0], x]
    for variable in variables:
        variable.requires_grad_()

    def work() -> list[Any]:
        losses = [
            gradient_distance(a, b),
            gradient_distance(long, [torch.ones_like(long[0])], "flat_cosine"),
            mean_distance(x, y, labels, labels, n_classes=3),
            mmd(x, y, [1.0, 2.0]),
            mmd(x, y, bandwidths),
        ]
        gradients = torch.autograd.grad(sum(losses), variables)
        return [*(loss.detach() for loss in losses), *gradients]

    return work


def test_nothing_waits_for_the_device() -> None:
    work = _work()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_graph_can_be_captured() -> None:
    work = _work()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = work()
    graph.replay()
    for i, (x, y) in enumerate(zip(captured, work(), strict=True)):
        assert_same_values(x, y, f"{i} of the graph")


def test_the_order_of_the_stream_is_kept() -> None:
    a, b = ([x.cuda() for x in matrices([(3, 1 << 20)], torch.float32, s)] for s in range(2))
    expected = PRODUCTS([a[0] + 1], b).cpu()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        a[0].add_(1)
        found = PRODUCTS(a, b)
    stream.synchronize()
    assert_same_values(found, expected, "products")
