# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels of gradients and features, compiled for the host, give the bits of the CPU."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ddkern import kernel_calls  # noqa: E402
from helpers.losses import (  # noqa: E402
    COMBINATION,
    LOSSES,
    MANY_RATES,
    MATRICES,
    MEANS,
    MMD,
    PRODUCTS,
    PULL,
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
    pull_factors,
    unusual_matrices,
)
from helpers.matching import (  # noqa: E402
    BLOCK,
    DTYPES,
    assert_same_as_on_the_cpu,
    assert_same_values,
)
from helpers.simt import load_simt, simt_options  # noqa: E402


def through_simt(op: Any, arguments: list[Any]) -> Any:
    with kernel_calls.use_module(load_simt()):
        return op(*arguments)


# --- Rows of gradients ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MATRICES)
def test_matrices(name: str, dtype: torch.dtype) -> None:
    assert_gradients_agree(
        *(matrices(MATRICES[name], dtype, seed) for seed in range(2)), through_simt
    )


# Vectors are loaded where all begin at a multiple of 16 bytes, single values elsewhere.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offsets", [(1, 1), (0, 1), (8, 8), (3, 0)])
def test_matrices_that_begin_anywhere(offsets: tuple[int, int], dtype: torch.dtype) -> None:
    shapes = [(7, 600), (33, 1), (2, 4097)]
    a, b = (matrices(shapes, dtype, seed, offset) for seed, offset in enumerate(offsets))
    assert_gradients_agree(a, b, through_simt)


@pytest.mark.parametrize("seed", [1, 2, 20])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_by_threads_in_any_order(seed: int, dtype: torch.dtype) -> None:
    shapes = [(3, 2 * BLOCK + 7), (11, 100), (2, 2049)]
    with simt_options(seed=seed, host_threads=1 + seed % 2):
        assert_gradients_agree(*(matrices(shapes, dtype, s) for s in range(2)), through_simt)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1.0, -0.0, 1e-30, 1e300, float("nan"), float("inf")])
def test_unusual_values_of_rows(factor: float, dtype: torch.dtype) -> None:
    a, b = unusual_matrices(dtype)
    n = len(a[0])
    of_a, of_b = torch.full((n,), factor, dtype=torch.float64), factors(a)[1]
    assert_same_as_on_the_cpu(PRODUCTS, [a, b], through_simt)
    assert_same_as_on_the_cpu(COMBINATION, [a, b, of_a, of_b], through_simt)
    assert_same_as_on_the_cpu(COMBINATION, [a, b, of_b, of_a], through_simt)


# Both products are rounded, so that nothing is left; that they were not would show here alone.
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_that_cancel(dtype: torch.dtype) -> None:
    a = matrices([(7, 600), (50, 3)], dtype, 0)
    of, _ = factors(a)
    assert_same_as_on_the_cpu(COMBINATION, [a, a, of, -of], through_simt)
    assert not any(x.any() for x in through_simt(COMBINATION, [a, a, of, -of]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_nan_spoils_its_row_alone(dtype: torch.dtype) -> None:
    for shape in ((20, 70), (3, 2000), (2, BLOCK + 6)):
        for place in (0, 31, 64, shape[1] - 1):
            a, b = (matrices([shape], dtype, seed) for seed in range(2))
            a[0][1, place] = torch.nan
            found = through_simt(PRODUCTS, [a, b]).isnan()
            assert found[:, 1].tolist() == [True, True, False]
            assert found.sum() == 2


def test_wrong_matrices_never_reach_the_kernels() -> None:
    one, two = torch.zeros(2, 3), torch.zeros(2, 4)
    of = torch.zeros(2, dtype=torch.float64)
    for a, b in (([one], [two]), ([one], [one.double()]), ([one], [one, one])):
        with pytest.raises(ValueError, match="b has other sizes, dtypes or devices than it must"):
            through_simt(PRODUCTS, [a, b])
        with pytest.raises(ValueError, match="b has other sizes"):
            through_simt(COMBINATION, [a, b, of, of])
    with pytest.raises(ValueError, match="of_b has 1 factors; it must have one for each row"):
        through_simt(COMBINATION, [[one], [one], of, of[:1]])
    with pytest.raises(
        ValueError, match="n_columns has another number of entries than there are tensors"
    ):
        load_simt().products_workspace(n_rows=[1, 2], n_columns=[3])


# --- Means of classes -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SEGMENTS, ids=str)
def test_segments(shape: tuple[int, int, int]) -> None:
    n, n_features, n_classes = shape
    values = points(n, n, n_features)
    for labels in (labels_of(n, n_classes), labels_of(n, n_classes).sort().values):
        assert_same_as_on_the_cpu(MEANS, [values, labels, n_classes, "labels"], through_simt)


@pytest.mark.parametrize("seed", [1, 2, 20])
def test_segments_by_threads_in_any_order(seed: int) -> None:
    values, labels = points(0, 2500, 70), labels_of(2500, 5)
    with simt_options(seed=seed, host_threads=1 + seed % 2):
        assert_same_as_on_the_cpu(MEANS, [values, labels, 5, "labels"], through_simt)


def test_segments_in_any_layout() -> None:
    values = points(1, 40, 12).T.contiguous().T[::2, 1:]
    for labels in (labels_of(20, 4), labels_of(20, 4).int(), labels_of(40, 4)[::2]):
        assert_same_as_on_the_cpu(MEANS, [values, labels, 4, "labels"], through_simt)
    assert_same_as_on_the_cpu(
        MEANS, [points(1, 30, 5, offset=1), labels_of(30, 4), 4, "labels"], through_simt
    )


def test_labels_that_nobody_looks_at() -> None:
    values, labels = points(0, 3000, 5), labels_of(3000, 4)
    expected = MEANS(values, labels, 4, "labels")
    found = through_simt(MEANS, [values, labels, 6, "labels"])
    assert_same_values(found[:4], expected, "classes with rows")
    assert found[4:].isnan().all()
    for wrong in (-1, 4, 1 << 40, -(1 << 40)):
        changed = labels.clone()
        changed[2999] = wrong
        assert through_simt(MEANS, [values, changed, 4, "labels"]).isnan().all()


def test_wrong_labels_give_gradients_of_nan() -> None:
    values = points(0, 6, 3).requires_grad_()
    with kernel_calls.use_module(load_simt()):
        loss = MEANS(values, torch.tensor([0, 1, 2, 9, 0, 1]), 3, "labels").square().sum()
        (gradient,) = torch.autograd.grad(loss, values)
    assert gradient.isnan().all()


# --- Sets of points -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SETS, ids=str)
def test_sets(shape: tuple[int, int, int]) -> None:
    n, m, n_features = shape
    assert_sets_agree(points(0, n, n_features), points(1, m, n_features), through_simt)


def test_sets_of_any_size() -> None:
    for size in range(1, 71):
        assert_sets_agree(points(size, size, 5), points(1, 71 - size, 5), through_simt)
        assert_sets_agree(points(size, 3, size), points(1, 4, size), through_simt)


@pytest.mark.parametrize("sizes", [(40, 35), (96, 95), (120, 125)], ids=str)
@pytest.mark.parametrize("seed", [1, 2, 20])
def test_sets_by_threads_in_any_order(seed: int, sizes: tuple[int, int]) -> None:
    with simt_options(seed=seed, host_threads=1 + seed % 2):
        assert_sets_agree(points(0, sizes[0], 37), points(1, sizes[1], 37), through_simt)


@pytest.mark.parametrize("n_features", [64, 67])
@pytest.mark.parametrize("offsets", [(1, 1), (0, 1), (4, 8), (3, 0)])
def test_points_that_begin_anywhere(offsets: tuple[int, int], n_features: int) -> None:
    x, y = (points(seed, 20, n_features, offset) for seed, offset in enumerate(offsets))
    assert_sets_agree(x, y, through_simt)


def test_a_set_and_itself() -> None:
    x = points(0, 50, 20)
    assert_sets_agree(x, x, through_simt)
    means = through_simt(MMD, [x, x, RATES])
    assert means[0] == means[2]


def test_no_features() -> None:
    x, y = torch.zeros(3, 0), torch.zeros(40, 0)
    assert_sets_agree(x, y, through_simt)


@pytest.mark.parametrize("sizes", [(40, 20), (96, 95), (120, 125)], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38, 1e-40])
def test_unusual_points(value: float, sizes: tuple[int, int]) -> None:
    x, y = points(0, sizes[0], 9), points(1, sizes[1], 9)
    x[17, 8] = value
    assert_sets_agree(x, y, through_simt)
    assert_sets_agree(y, x, through_simt)
    x[:, 8] = value
    assert_sets_agree(x, y, through_simt)


# What is left of a pull is the rounding of its float64 terms, which float32 would hide otherwise.
def test_terms_that_cancel() -> None:
    y = points(0, 21, 9)
    assert_sets_agree(torch.zeros(5, 9), torch.cat([y, -y]), through_simt)


def test_the_exponential_over_its_range() -> None:
    distances = torch.cat([torch.linspace(0, 27, 600), torch.tensor([26.6, 26.7, 40.0, 1e18])])
    x = torch.zeros(1, 1)
    assert_sets_agree(x, distances[:, None], through_simt, torch.ones(1, dtype=torch.float64))


def test_rates_that_do_not_fit_a_launch() -> None:
    x, y = points(0, 20, 9), points(1, 18, 9)
    assert_sets_agree(x, y, through_simt, MANY_RATES)
    assert_sets_agree(x, y, through_simt, MANY_RATES[:32])
    with pytest.raises(ValueError, match="rates has more numbers than one call can name"):
        load_simt().mmd_means(
            x=0, y=0, n=1, m=1, n_features=1, rates=[1.0] * 33, rates_at=0, n_rates_at=0,
            workspace=0, out=0, device=0, stream=0,
        )  # fmt: skip


def test_weights_in_several_stripes() -> None:
    n, m = 150, 33_000
    assert load_simt().check_stripe_panels(n, m) == 8
    x, y = points(0, n, 1), points(1, m, 1)
    own, cross = pull_factors()
    assert_same_as_on_the_cpu(PULL, [x, y, RATES[:1], own, cross], through_simt)


def test_wrong_sets_never_reach_the_kernels() -> None:
    x, own = torch.zeros(3, 2), torch.zeros((), dtype=torch.float64)
    for y in (torch.zeros(3, 4), x.double()):
        with pytest.raises(ValueError, match="y has other features, another dtype or device"):
            through_simt(MMD, [x, y, RATES])
        with pytest.raises(ValueError, match="y has other features, another dtype or device"):
            through_simt(PULL, [x, y, RATES, own, own])


# --- All of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives(name: str) -> None:
    def both() -> list[Any]:
        return [points(seed, 21, 70) for seed in range(2)]

    labels = labels_of(21, 3)
    with kernel_calls.use_module(load_simt()):
        found = derivatives(name, both(), labels)
    for i, (x, y) in enumerate(zip(found, derivatives(name, both(), labels), strict=True)):
        assert_same_values(x, y, f"{i} of {name}")


# --- Which tiles are launched ---------------------------------------------------------------------


def test_the_sets_reach_every_tile() -> None:
    sides = [load_simt().check_tile_sides(n, m, 2) for n, m, _ in SETS]
    for part in zip(*sides, strict=True):
        assert set(part) == {16, 32, 64}


def test_tiles_grow_with_the_work() -> None:
    sides = load_simt().check_tile_sides
    assert sides(50, 256, 132) == (16, 16)
    assert sides(2560, 2560, 132) == (64, 64)
    assert sides(10_000_000, 10_000_000, 132) == (64, 64)


def test_stripes_have_a_bounded_size() -> None:
    panels = load_simt().check_stripe_panels
    assert panels(1, 1) == 1
    assert panels(50, 256) == 4
    assert panels(2560, 2560) == 48
    assert panels(100_000, 10) == 8
