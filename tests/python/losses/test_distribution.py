# SPDX-License-Identifier: Apache-2.0
"""Distances between sets of features: kernels, derivatives, and what torch makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from ddkern import _core  # noqa: E402
from ddkern.losses import (  # noqa: E402
    mean_distance,
    mean_distance_reference,
    mmd,
    mmd_bandwidths,
    mmd_reference,
    segment_means,
    segment_means_reference,
)
from helpers.isa import forced_isa  # noqa: E402
from reference.matching import class_means, mmd_means, mmd_pull  # noqa: E402

FIVE = torch.tensor([0.3, 0.8, 2.0, 5.0, 13.0], dtype=torch.float64)
RATES = 0.5 / FIVE.square()


def points(seed: int, n: int, n_features: int, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n_features, generator=generator, **options)


def labels_of(n: int, n_classes: int, seed: int = 0) -> Tensor:
    """Labels in no order, of classes of different sizes, all of which occur."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, n_classes, (n,), generator=generator)
    drawn[:n_classes] = torch.arange(n_classes)
    return drawn[torch.randperm(n, generator=generator)]


def on_threads(compute: Callable[[], list[Tensor]]) -> list[list[Tensor]]:
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(compute())
    finally:
        torch.set_num_threads(before)
    return found


# ------------------------------------------------------------------------------------- class means


@pytest.mark.sanitize
def test_means_have_the_bits_of_the_definition(isa: str) -> None:
    for n, n_features, n_classes in ((1, 1, 1), (7, 200, 3), (300, 65, 10), (40, 0, 2)):
        values, labels = points(n, n, n_features), labels_of(n, n_classes)
        found = segment_means(values, labels, n_classes)
        expected = class_means(values.double().numpy(), labels.numpy(), n_classes)
        np.testing.assert_array_equal(found.numpy(), expected, strict=True)


@pytest.mark.sanitize
def test_means_of_any_width(isa: str) -> None:
    labels = labels_of(11, 3)
    for n_features in range(1, 71):
        values = points(n_features, 11, n_features)
        expected = class_means(values.double().numpy(), labels.numpy(), 3)
        np.testing.assert_array_equal(segment_means(values, labels, 3).numpy(), expected)


@pytest.mark.sanitize
def test_means_by_any_number_of_threads() -> None:
    values, labels = points(0, 700, 600), labels_of(700, 10)
    one, two = on_threads(lambda: [segment_means(values, labels, 10)])
    assert torch.equal(one[0], two[0])


def test_means_in_any_layout_and_dtype() -> None:
    values = points(1, 40, 12).T.contiguous().T[::2, 1:]
    for labels in (labels_of(20, 4), labels_of(20, 4).int(), labels_of(40, 4)[::2]):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            found = segment_means(values.to(dtype), labels, 4)
            expected = segment_means_reference(values.to(dtype).contiguous(), labels, 4)
            torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_mean_distance_is_that_of_the_reference(dtype: torch.dtype) -> None:
    s = points(0, 30, 50).to(dtype).requires_grad_()
    r = points(1, 90, 50).to(dtype).requires_grad_()
    labels = (labels_of(30, 5), labels_of(90, 5, seed=1))
    found = mean_distance(s, r, *labels)
    expected = mean_distance_reference(s, r, *labels)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    means = [
        class_means(x.detach().double().numpy(), of.numpy(), 5)
        for x, of in zip((s, r), labels, strict=True)
    ]
    assert found.item() == pytest.approx(np.sum((means[0] - means[1]) ** 2), rel=1e-6)
    ours, theirs = (torch.autograd.grad(3 * value, [s, r]) for value in (found, expected))
    for x, y in zip(ours, theirs, strict=True):
        assert x.dtype == dtype
        torch.testing.assert_close(x, y, rtol=1e-6, atol=0)


def test_classes_are_those_that_occur_or_all() -> None:
    s, r, of_s, of_r = points(0, 6, 4), points(1, 9, 4), labels_of(6, 2), labels_of(9, 2)
    alone = mean_distance(s, r, of_s, of_r)
    assert alone.item() == mean_distance(s, r, of_s, of_r, n_classes=2).item()
    assert alone.item() == mean_distance(s, r, 5 * of_s - 7, 5 * of_r - 7).item()


def test_close_means_do_not_cost_precision() -> None:
    s = 1000 + points(0, 50, 20)
    r = s.flip(0) + 2**-13
    labels = torch.zeros(50, dtype=torch.int64)
    exact = ((s.double().mean(0) - r.double().mean(0)) ** 2).sum().item()
    assert mean_distance(s, r, labels, labels).item() == pytest.approx(exact, rel=1e-6)


# --------------------------------------------------------------------------------------------- mmd

SIZES = [(1, 1, 1), (1, 16, 3), (16, 17, 64), (15, 33, 65), (40, 70, 10), (5, 3, 300)]


@pytest.mark.sanitize
@pytest.mark.parametrize(("n", "m", "n_features"), SIZES)
def test_block_means_and_pulls_are_those_of_the_formulas(
    isa: str, n: int, m: int, n_features: int
) -> None:
    x, y = points(0, n, n_features), points(1, m, n_features) + 0.5
    rates = RATES / n_features
    arguments = x.double().numpy(), y.double().numpy(), rates.numpy()
    means = torch.ops.ddkern.mmd_means(x, y, rates)
    np.testing.assert_allclose(means.numpy(), mmd_means(*arguments), rtol=1e-12)
    own, cross = torch.tensor([0.7, -1.3], dtype=torch.float64)
    pull = torch.ops.ddkern.mmd_pull(x, y, rates, own, cross)
    expected = mmd_pull(*arguments, own.item(), cross.item())
    np.testing.assert_allclose(
        pull.numpy(), expected, rtol=1e-6, atol=1e-12 * np.abs(expected).max()
    )
    with forced_isa("base"):
        assert torch.equal(means, torch.ops.ddkern.mmd_means(x, y, rates))
        assert torch.equal(pull, torch.ops.ddkern.mmd_pull(x, y, rates, own, cross))


@pytest.mark.sanitize
def test_block_means_and_pulls_of_any_size(isa: str) -> None:
    own, cross = torch.tensor([0.7, -1.3], dtype=torch.float64)
    for size in range(1, 71):
        x, y = points(size, size, 5), points(1, 71 - size, 5)
        wide = x.double().numpy(), y.double().numpy(), RATES.numpy()
        means = torch.ops.ddkern.mmd_means(x, y, RATES)
        np.testing.assert_allclose(means.numpy(), mmd_means(*wide), rtol=1e-12)
        x, y = points(size, 3, size), points(1, 4, size)
        wide = x.double().numpy(), y.double().numpy(), RATES.numpy()
        pull = torch.ops.ddkern.mmd_pull(x, y, RATES, own, cross)
        expected = mmd_pull(*wide, own.item(), cross.item())
        np.testing.assert_allclose(
            pull.numpy(), expected, rtol=1e-6, atol=1e-12 * np.abs(expected).max()
        )


@pytest.mark.sanitize
def test_the_exponential_over_its_range(isa: str) -> None:
    # Pairs of one point each, so that a mean is one exponential.
    distances = torch.cat([torch.linspace(0, 27, 400), torch.tensor([26.6, 26.7, 40.0, 1e18])])
    zero = torch.zeros(1, 1)
    rates = torch.ones(1, dtype=torch.float64)
    for distance in distances:
        found = torch.ops.ddkern.mmd_means(zero, distance.reshape(1, 1), rates)[1].item()
        t = -(float(distance) ** 2)
        expected = np.exp(t) if t > -708 else 0.0
        assert found == pytest.approx(expected, rel=2**-51, abs=0), (isa, t)


@pytest.mark.sanitize
def test_mmd_by_any_number_of_threads() -> None:
    s, r = points(0, 90, 300, requires_grad=True), points(1, 200, 300, requires_grad=True)

    def compute() -> list[Tensor]:
        value = mmd(s, r, 10 * FIVE)
        return [value, *torch.autograd.grad(value, [s, r])]

    for one, two in zip(*on_threads(compute), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_mmd_is_that_of_the_reference(dtype: torch.dtype) -> None:
    s = points(0, 21, 30).to(dtype).requires_grad_()
    r = (points(1, 50, 30) + 0.3).to(dtype).requires_grad_()
    bandwidths = mmd_bandwidths(s, r)
    found, expected = mmd(s, r, bandwidths), mmd_reference(s, r, bandwidths)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, [s, r]),
        torch.autograd.grad(3 * expected, [s, r]),
        strict=True,
    ):
        assert ours.dtype == dtype
        rtol = 2**-7 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-6 * theirs.abs().max().item())


def test_equal_sets_and_large_offsets() -> None:
    s = points(0, 20, 40)
    assert mmd(s, s.flip(0), [3.0, 9.0]).item() == pytest.approx(0, abs=1e-14)
    # float32 distances would be lost at this offset; where the inputs are, float64 has digits left.
    r = points(1, 30, 40) + 0.5
    moved, other = s + 2048, r + 2048
    exact = mmd_means(moved.double().numpy(), other.double().numpy(), np.array([0.02]))
    value = mmd(moved, other, 5.0).item()
    assert value == pytest.approx(exact[0] - 2 * exact[1] + exact[2], rel=1e-6)


def test_bandwidths_in_any_form() -> None:
    s, r = points(0, 4, 6), points(1, 5, 6)
    two = mmd(s, r, [1.0, 2.0])
    for form in ((1, 2), np.array([1.0, 2.0]), torch.tensor([1.0, 2.0])):
        assert mmd(s, r, form).item() == two.item()
    apart = mmd(s, r, 1.0) + mmd(s, r, np.float32(2))
    torch.testing.assert_close(apart, two, rtol=1e-6, atol=0)


def test_the_scale_of_bandwidths_is_the_mean_squared_distance() -> None:
    s, r = points(0, 7, 20), 3 + points(1, 12, 20)
    both = torch.cat([s, r]).double()
    squares = (both[:, None] - both).square().sum(2)
    mean = (squares.sum() / (19 * 18)).item()
    expected = mean * np.array([0.25, 0.5, 1, 2, 4])
    np.testing.assert_allclose(2 * mmd_bandwidths(s, r).numpy() ** 2, expected, rtol=1e-12)
    assert mmd_bandwidths(s, r, 1).item() == pytest.approx(np.sqrt(mean / 2))
    assert not mmd_bandwidths(s.requires_grad_(), r).requires_grad


# -------------------------------------------------------------------------------------------- both


def test_derivatives_of_any_order() -> None:
    s = points(0, 4, 3, dtype=torch.float64, requires_grad=True)
    r = points(1, 5, 3, dtype=torch.float64, requires_grad=True)
    labels = (torch.tensor([0, 1, 1, 0]), torch.tensor([1, 0, 1, 1, 1]))
    for distance in (
        lambda x, y: mmd(x, y, [0.7, 2.0]),
        lambda x, y: mean_distance(x, y, *labels),
    ):
        assert torch.autograd.gradcheck(distance, [s, r])
        assert torch.autograd.gradgradcheck(distance, [s, r])


def test_second_derivatives_of_the_kernels() -> None:
    s, r = points(0, 6, 9, requires_grad=True), points(1, 8, 9, requires_grad=True)
    labels = (labels_of(6, 2), labels_of(8, 2))
    pairs = [
        (lambda: mmd(s, r, [1.0, 4.0]), lambda: mmd_reference(s, r, [1.0, 4.0])),
        (
            lambda: mean_distance(s, r, *labels),
            lambda: mean_distance_reference(s, r, *labels),
        ),
    ]

    def product(distance: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        (first,) = torch.autograd.grad(distance(), s, create_graph=True)
        return torch.autograd.grad(first.pow(3).sum(), [s, r])

    for kernel, reference in pairs:
        for ours, theirs in zip(product(kernel), product(reference), strict=True):
            torch.testing.assert_close(
                ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item()
            )


def test_opcheck() -> None:
    s, r = points(0, 6, 9, requires_grad=True), points(1, 8, 9, requires_grad=True)
    torch.library.opcheck(torch.ops.ddkern.mmd_means.default, (s, r, RATES))
    torch.library.opcheck(torch.ops.ddkern.segment_means.default, (s, labels_of(6, 2), 2, "labels"))
    factor = torch.tensor(0.5, dtype=torch.float64)
    torch.library.opcheck(
        torch.ops.ddkern.mmd_pull.default, (s.detach(), r.detach(), RATES, factor, factor)
    )


def test_compiles_into_one_graph() -> None:
    s, r = points(0, 20, 9, requires_grad=True), points(1, 30, 9, requires_grad=True)
    labels = (labels_of(20, 2), labels_of(30, 2))

    def both(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (
            mmd(x, y, [1.0, 4.0]),
            mmd(x, y, FIVE),
            mean_distance(x, y, *labels, n_classes=2),
        )

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(s, r), both(s, r), strict=True):
        assert found.item() == expected.item()
        ours, theirs = (
            torch.autograd.grad(value, [s, r], retain_graph=True) for value in (found, expected)
        )
        for x, y in zip(ours, theirs, strict=True):
            assert torch.equal(x, y)


def test_nan_spreads(isa: str) -> None:
    s, r = points(0, 20, 9), points(1, 30, 9)
    s[17, 8] = torch.nan
    labels = (labels_of(20, 2), labels_of(30, 2))
    for value in (
        mmd(s, r, FIVE),
        mmd_reference(s, r, FIVE),
        mean_distance(s, r, *labels),
        mean_distance_reference(s, r, *labels),
    ):
        assert torch.isnan(value)
    s.requires_grad_()
    (gradient,) = torch.autograd.grad(mmd(s, r, FIVE), s)
    assert torch.isnan(gradient).all()
    s = points(0, 20, 9)
    s[3] = torch.inf
    assert torch.isnan(mmd(s, r, FIVE))


X, LABELS = torch.zeros(3, 2), torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real": torch.zeros(3, 4)}, "real has 4 features, .*; it must have 2 features"),
        ({"real": X.double()}, "real has 2 features, torch.float64 .*torch.float32"),
        ({"synthetic": X[0]}, r"synthetic has shape \(2,\); it must be \(rows, features\)"),
        ({"real": X[:0]}, r"real has shape \(0, 2\); .* one row at least"),
        ({"synthetic": X.long()}, "synthetic must be a tensor of floating point"),
        ({"real": X.numpy()}, "real must be a tensor of floating point"),
        (
            {"synthetic_labels": LABELS[:2]},
            r"synthetic_labels has shape \(2,\) .*must have shape \(3,\)",
        ),
        ({"real_labels": LABELS.float()}, "real_labels must be a tensor of integers"),
        ({"real_labels": LABELS > 0}, "real_labels must be a tensor of integers"),
        ({"real_labels": [0, 1, 1]}, "real_labels must be a tensor of integers"),
        ({"n_classes": 0}, "n_classes=0; it must be an integer of at least 1"),
        ({"n_classes": 1}, r"synthetic_labels holds 1; .* labels must be in \[0, 1\)"),
        ({"real_labels": -LABELS, "n_classes": 2}, r"real_labels holds -1; .*in \[0, 2\)"),
        ({"n_classes": 4}, "synthetic_labels has no row of class 2; every class must have rows"),
        (
            {"real_labels": LABELS * 0, "n_classes": 2},
            "real_labels has no row of class 1; every class must have rows",
        ),
        (
            {"synthetic_labels": LABELS * 7},
            "synthetic_labels has no row of class 1, which occurs on the other side",
        ),
        ({"real_labels": LABELS * 0}, "real_labels has no row of class 1, which occurs on"),
    ],
)
def test_wrong_arguments_of_mean_distance(changes: dict[str, Any], message: str) -> None:
    arguments = {"synthetic": X, "real": X, "synthetic_labels": LABELS, "real_labels": LABELS}
    for distance in (mean_distance, mean_distance_reference):
        with pytest.raises((TypeError, ValueError), match=message):
            distance(**(arguments | changes))


def test_wrong_arguments_of_segment_means() -> None:
    for means in (segment_means, segment_means_reference):
        with pytest.raises(ValueError, match="labels has no row of class 2"):
            means(X, LABELS, 3)
        with pytest.raises(ValueError, match="values has shape"):
            means(X[0], LABELS, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real": torch.zeros(3, 4)}, "real has 4 features, .*; it must have 2 features"),
        ({"bandwidths": 0.0}, r"bandwidths\[0\]=0.0; it must be a positive number"),
        ({"bandwidths": [1.0, -1.0]}, r"bandwidths\[1\]=-1.0; it must be a positive number"),
        ({"bandwidths": [1.0, np.inf]}, r"bandwidths\[1\]=inf; it must be a positive number"),
        ({"bandwidths": torch.tensor([np.nan])}, r"bandwidths\[0\]=nan; it must be a positive"),
        ({"bandwidths": "mean"}, r"bandwidths\[0\]='m' is a str; it must be a positive number"),
        ({"bandwidths": None}, r"bandwidths\[0\]=None is a NoneType; it must be a positive"),
        ({"bandwidths": []}, "bandwidths is empty"),
        ({"bandwidths": torch.ones(2, 2)}, r"bandwidths has shape \(2, 2\)"),
        ({"bandwidths": torch.ones(2).long()}, "bandwidths has shape .*torch.int64"),
    ],
)
def test_wrong_arguments_of_mmd(changes: dict[str, Any], message: str) -> None:
    arguments = {"synthetic": X, "real": X, "bandwidths": 1.0} | changes
    for distance in (mmd, mmd_reference):
        with pytest.raises((TypeError, ValueError), match=message):
            distance(**arguments)


def test_wrong_arguments_of_bandwidths() -> None:
    with pytest.raises(ValueError, match="equal points alone"):
        mmd_bandwidths(X, X)
    with pytest.raises(ValueError, match="n_kernels=0; it must be"):
        mmd_bandwidths(X, X + 1, 0)


def test_bindings_keep_memory_safe() -> None:
    x, out, rates = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32), np.ones(1)
    means = {
        "values": x,
        "labels": np.array([0, 1, 1]),
        "counts": np.array([1, 2]),
        "out": np.zeros((2, 2)),
        "n_threads": 1,
    }
    for changes, message in (
        ({"labels": np.array([0, 1, 2])}, "labels holds a number that is no class"),
        ({"labels": np.array([0, -1, 1])}, "labels holds a number that is no class"),
        ({"labels": np.array([0, 1])}, "labels has another dtype, shape or layout"),
        ({"labels": np.zeros(3)}, "labels has another dtype, shape or layout"),
        ({"values": x[0]}, "values has another number of axes"),
        ({"out": np.zeros((3, 2))}, "out has another dtype, shape or layout"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.segment_means(**(means | changes))
    for changes, message in (
        ({"y": np.zeros((3, 3), np.float32)}, "y has another dtype, shape or layout"),
        ({"x": x.astype(float)}, "x has another dtype, shape or layout"),
        ({"rates": rates.astype(np.float32)}, "rates has another dtype, shape or layout"),
        ({"rates": np.ones((1, 1))}, "rates has another number of axes"),
    ):
        arguments = {"x": x, "y": x, "rates": rates, "n_threads": 1} | changes
        with pytest.raises(ValueError, match=message):
            _core.mmd_means(**arguments)
        with pytest.raises(ValueError, match=message):
            _core.mmd_pull(**(arguments | {"out": out, "own": 1.0, "cross": 1.0}))
    with pytest.raises(ValueError, match="out has another dtype, shape or layout"):
        _core.mmd_pull(x=x, y=x, rates=rates, own=1.0, cross=1.0, out=out[:2], n_threads=1)
