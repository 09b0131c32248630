# SPDX-License-Identifier: Apache-2.0
"""Distances between gradients: kernels, derivatives, and what torch makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from ddkern import _core  # noqa: E402
from ddkern.losses import (  # noqa: E402
    gradient_distance,
    gradient_distance_reference,
    gradient_norm,
    gradient_norm_reference,
)
from reference.matching import canonical_row_products, row_cosine_distance  # noqa: E402

METRICS = ["cosine", "flat_cosine", "mse", "normalized_mse", "euclidean"]
SHAPES = [(5, 3, 3, 3), (5,), (4, 71), (), (3, 4, 2), (2, 20_000)]
DTYPES = [torch.float32, torch.bfloat16]


def gradients(seed: int, dtype: torch.dtype, **options: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator).to(dtype).requires_grad_(**options)
        for shape in SHAPES
    ]


def matrices(seed: int, dtype: torch.dtype) -> list[Tensor]:
    tensors = gradients(seed, dtype, requires_grad=False)
    return [tensor.flatten(1) for tensor in tensors if tensor.ndim > 1]


def as_float64(tensors: list[Tensor]) -> list[np.ndarray]:
    return [tensor.detach().double().numpy() for tensor in tensors]


def derivatives(distance: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(distance, tensors, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, tensors, strict=True)]


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_have_the_bits_of_the_definition(isa: str, dtype: torch.dtype) -> None:
    a, b = (matrices(seed, dtype) for seed in range(2))
    found = torch.ops.ddkern.row_products(a, b).numpy()
    np.testing.assert_array_equal(found, canonical_row_products(as_float64(a), as_float64(b)))


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_and_combinations_of_any_width(isa: str, dtype: torch.dtype) -> None:
    a, b = ([torch.randn(2, n).to(dtype) for n in range(71)] for _ in range(2))
    found = torch.ops.ddkern.row_products(a, b).numpy()
    expected = canonical_row_products(as_float64(a), as_float64(b))
    np.testing.assert_array_equal(found, expected)
    of_a, of_b = torch.randn(2, 142, dtype=torch.float64)
    combined = torch.ops.ddkern.row_combination(a, b, of_a, of_b)
    for n, (out, x, y) in enumerate(zip(combined, a, b, strict=True)):
        rows = slice(2 * n, 2 * n + 2)
        wide = of_a[rows, None] * x.double() + of_b[rows, None] * y.double()
        assert out.dtype == dtype
        assert torch.equal(out, wide.to(torch.float32).to(dtype)), (isa, n)


@pytest.mark.sanitize
def test_any_number_of_threads_gives_the_same_bits() -> None:
    shapes = [(64, 3, 3, 3), (128, 64, 3, 3), (10, 2048), (1, 300_001)]
    s, r = ([torch.randn(shape, requires_grad=True) for shape in shapes] for _ in range(2))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            distance = gradient_distance(s, r)
            found.append([distance, *torch.autograd.grad(distance, [*s, *r])])
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64, torch.float16])
def test_values_and_derivatives_are_those_of_the_reference(metric: str, dtype: torch.dtype) -> None:
    s, r = (gradients(seed, dtype) for seed in range(2))
    found = gradient_distance(s, r, metric)
    expected = gradient_distance_reference(s, r, metric)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    tolerance = {torch.bfloat16: 2**-7, torch.float16: 2**-9}.get(dtype, 1e-5)
    for ours, theirs in zip(
        derivatives(3 * found, [*s, *r]), derivatives(3 * expected, [*s, *r]), strict=True
    ):
        assert ours.dtype == dtype
        torch.testing.assert_close(
            ours, theirs, rtol=tolerance, atol=1e-6 * theirs.abs().max().item()
        )


def test_values_are_those_of_the_formulas() -> None:
    s, r = (gradients(seed, torch.float32) for seed in range(2))
    a, b = as_float64(s), as_float64(r)
    flat_a, flat_b = (np.concatenate([x.ravel() for x in arrays]) for arrays in (a, b))
    squared = np.sum((flat_a - flat_b) ** 2)
    norms = np.linalg.norm(flat_a) * np.linalg.norm(flat_b)
    expected = {
        "cosine": row_cosine_distance(a, b),
        "flat_cosine": 1 - flat_a @ flat_b / (norms + 1e-6),
        "mse": squared,
        "normalized_mse": squared / np.sum(flat_b**2),
        "euclidean": np.sqrt(squared),
    }
    for metric in METRICS:
        value = gradient_distance(s, r, metric).item()
        assert value == pytest.approx(expected[metric], rel=1e-6), metric
    assert gradient_norm(s).item() == pytest.approx(np.linalg.norm(flat_a), rel=1e-6)
    assert gradient_norm_reference(s).item() == pytest.approx(np.linalg.norm(flat_a), rel=1e-6)


def test_cosine_leaves_out_biases() -> None:
    s, r = ([torch.randn(3, 4, requires_grad=True), torch.randn(3)] for _ in range(2))
    distance = gradient_distance(s, r)
    assert distance.item() == gradient_distance(s[0], r[0]).item()
    s[1] = torch.full((3,), torch.nan)
    assert distance.item() == gradient_distance(s, r).item()


def test_tensors_in_any_layout() -> None:
    s, r = (torch.randn(8, 6, 4, 5).permute(2, 0, 3, 1)[:, ::2] for _ in range(2))
    for metric in METRICS:
        torch.testing.assert_close(
            gradient_distance(s, r, metric),
            gradient_distance(s.contiguous(), r.contiguous(), metric),
            rtol=1e-6,
            atol=0,
        )
    with_gaps = torch.ops.ddkern.row_products([s[0, :, ::2, 1]], [r[0, :, ::2, 1]])
    without = torch.ops.ddkern.row_products(
        [s[0, :, ::2, 1].contiguous()], [r[0, :, ::2, 1].contiguous()]
    )
    assert torch.equal(with_gaps, without)


@pytest.mark.parametrize("metric", METRICS)
def test_derivatives_of_any_order(metric: str) -> None:
    generator = torch.Generator().manual_seed(3)
    sources = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 2), (2, 2, 1, 2)) * 2
    ]

    def distance(*tensors: Tensor) -> Tensor:
        return gradient_distance(list(tensors[:2]), list(tensors[2:]), metric)

    assert torch.autograd.gradcheck(distance, sources)
    assert torch.autograd.gradgradcheck(distance, sources)
    assert torch.autograd.gradcheck(lambda *g: gradient_norm(list(g)), sources)
    assert torch.autograd.gradgradcheck(lambda *g: gradient_norm(list(g)), sources)


@pytest.mark.parametrize("metric", METRICS)
def test_second_derivatives_of_the_kernels(metric: str) -> None:
    s, r = ([torch.randn(4, 40, requires_grad=True)] for _ in range(2))

    def product(distance: Any) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(distance(s, r, metric), s, create_graph=True)
        return torch.autograd.grad(first[0].pow(3).sum(), [*s, *r])

    for ours, theirs in zip(
        product(gradient_distance), product(gradient_distance_reference), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("metric", METRICS)
def test_derivatives_reach_synthetic_data(metric: str) -> None:
    generator = torch.Generator().manual_seed(5)
    weights = [
        torch.randn(shape, generator=generator, requires_grad=True)
        for shape in ((4, 2, 3, 3), (4,), (3, 4))
    ]
    images = torch.randn(3, 2, 6, 6, generator=generator, requires_grad=True)
    real_images = torch.randn(9, 2, 6, 6, generator=generator)

    def of_network(x: Tensor, **options: Any) -> tuple[Tensor, ...]:
        maps = torch.tanh(functional.conv2d(x, weights[0], weights[1])).mean((2, 3))
        labels = torch.arange(len(x)) % 3
        loss = functional.cross_entropy(maps @ weights[2].T, labels)
        return torch.autograd.grad(loss, weights, **options)

    synthetic, real = of_network(images, create_graph=True), of_network(real_images)
    ours, theirs = (
        torch.autograd.grad(distance(synthetic, real, metric), images, retain_graph=True)[0]
        for distance in (gradient_distance, gradient_distance_reference)
    )
    assert ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("distance", [gradient_distance, gradient_distance_reference])
def test_zero_rows_have_finite_derivatives(distance: Any) -> None:
    s = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    r = torch.tensor([[1.0, 0.0], [6.0, 8.0]], requires_grad=True)
    value = distance(s, r)
    # The first row counts 1; the second is 1e-6 / 50 from agreement.
    assert value.item() == pytest.approx(1.0, abs=1e-6)
    of_s, of_r = torch.autograd.grad(value, [s, r])
    assert of_s[0].tolist() == pytest.approx([-1e6, 0.0])
    assert of_r[0].tolist() == [0.0, 0.0]
    assert torch.autograd.grad(distance(r, r, "euclidean"), r)[0].abs().max() == 0


def test_the_derivative_near_a_minimum_is_precise() -> None:
    generator = torch.Generator().manual_seed(1)
    s = torch.randn(3, 500, generator=generator)
    r = s + 1e-3 * torch.randn(3, 500, generator=generator)
    s.requires_grad_()
    wide = s.detach().double().requires_grad_()
    (found,) = torch.autograd.grad(gradient_distance(s, r), s)
    (expected,) = torch.autograd.grad(gradient_distance(wide, r.double()), wide)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_opcheck() -> None:
    a, b = ([x.requires_grad_() for x in matrices(seed, torch.float32)[:2]] for seed in range(2))
    torch.library.opcheck(torch.ops.ddkern.row_products.default, (a, b))
    of_a, of_b = (torch.randn(9, dtype=torch.float64, requires_grad=True) for _ in range(2))
    torch.library.opcheck(torch.ops.ddkern.row_combination.default, (a, b, of_a, of_b))


def test_compiles_into_one_graph() -> None:
    s, r = (gradients(seed, torch.float32)[:4] for seed in range(2))
    for metric in METRICS:
        compiled = torch.compile(gradient_distance, fullgraph=True, backend="aot_eager")
        found, expected = compiled(s, r, metric), gradient_distance(s, r, metric)
        assert found.item() == expected.item()
        for x, y in zip(derivatives(found, s), derivatives(expected, s), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("metric", METRICS)
def test_nan_spreads(metric: str) -> None:
    s, r = torch.ones(2, 40), torch.full((2, 40), 2.0)
    s[1, 37] = torch.nan
    assert torch.isnan(gradient_distance(s, r, metric))
    assert torch.isnan(gradient_distance_reference(s, r, metric))
    assert torch.isnan(gradient_norm(s))
    assert torch.isinf(gradient_distance(r, torch.zeros(2, 40), "normalized_mse"))


GOOD = [torch.zeros(2, 3), torch.zeros(4)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real": GOOD[:1]}, "real has 1 tensors and synthetic 2; they must have the same"),
        ({"synthetic": [], "real": []}, "synthetic has 0 tensors"),
        (
            {"real": [GOOD[0], torch.zeros(5)]},
            r"real\[1\] has shape \(5,\).*must have shape \(4,\)",
        ),
        ({"real": [GOOD[0], GOOD[1].double()]}, r"real\[1\] .*torch.float64.*torch.float32"),
        ({"real": [GOOD[0], np.zeros(4)]}, r"real\[1\] must be a tensor of floating point"),
        ({"metric": "ours"}, "metric='ours'; it must be one of 'cosine', "),
        ({"metric": 3}, "metric is a int; it must be one of"),
        (
            {"synthetic": GOOD[1], "real": GOOD[1]},
            r"metric='cosine' compares rows, and the gradients have shapes \[\(4,\)\]",
        ),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    arguments = {"synthetic": GOOD, "real": GOOD} | changes
    for distance in (gradient_distance, gradient_distance_reference):
        with pytest.raises((TypeError, ValueError), match=message):
            distance(**arguments)


def test_bindings_keep_memory_safe() -> None:
    a, b = np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)
    out, factors = np.zeros((3, 2)), np.zeros(2)
    good = {"a": [a], "b": [a], "n_threads": 1}
    for changes, message in (
        ({"b": []}, "b has another number of tensors"),
        ({"b": [b]}, "b has another dtype, shape or layout"),
        ({"b": [a.astype(float)]}, "b has another dtype, shape or layout"),
        ({"a": [a[0]]}, "a holds an array that is no matrix"),
        ({"out": out[:, :1]}, "out has another dtype, shape or layout"),
        ({"out": out.astype(np.float32)}, "out has another dtype, shape or layout"),
        ({"out": out.astype(np.int64)}, "out has another dtype, shape or layout"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.row_products(**(good | {"out": out} | changes))
    for changes, message in (
        ({"out": []}, "out has another number of tensors"),
        ({"out": [b]}, "out has another dtype, shape or layout"),
        ({"of_a": factors[:1]}, "of_a has another dtype, shape or layout"),
        ({"of_b": factors.astype(np.float32)}, "of_b has another dtype, shape or layout"),
    ):
        arguments = good | {"of_a": factors, "of_b": factors, "out": [a.copy()]} | changes
        with pytest.raises(ValueError, match=message):
            _core.row_combination(**arguments)
