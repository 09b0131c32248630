# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels of the losses, compiled for the host, give the bits of the CPU's."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ddkern import kernel_calls  # noqa: E402
from ddkern.errors import CudaError  # noqa: E402
from ddkern.losses import squared_distance, trajectory_distance  # noqa: E402
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
from helpers.simt import load_simt, simt_options  # noqa: E402

OPS = torch.ops.ddkern
SUMS, DIFFERENCE = of_one_total(OPS.trajectory_sums), of_one_total(OPS.scaled_difference)
ABSOLUTE = of_one_total(OPS.absolute_sums)
FACTOR = torch.tensor(-1.7, dtype=torch.float64)


def through_simt(op: Any, arguments: list[Any]) -> Any:
    with kernel_calls.use_module(load_simt()):
        return op(*arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LISTS)
def test_lists(name: str, dtype: torch.dtype) -> None:
    student, target, start = (draw(LISTS[name], dtype, seed) for seed in range(3))
    assert_same_as_on_the_cpu(SUMS, [student, target, start], through_simt)
    assert_same_as_on_the_cpu(SUMS, [student, target, []], through_simt)
    assert_same_as_on_the_cpu(ABSOLUTE, [student, target], through_simt)
    assert_same_as_on_the_cpu(DIFFERENCE, [student, target, FACTOR], through_simt)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails(dtype: torch.dtype) -> None:
    for n in range(1, 71):
        student, target, start = (draw([n], dtype, 3 * n + seed) for seed in range(3))
        assert_same_as_on_the_cpu(SUMS, [student, target, start], through_simt)
        assert_same_as_on_the_cpu(ABSOLUTE, [student, target], through_simt)
        assert_same_as_on_the_cpu(DIFFERENCE, [student, target, FACTOR], through_simt)


# Vectors are loaded where all three begin at a multiple of 16 bytes, single values elsewhere.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offsets", [(1, 1), (0, 1), (8, 8), (3, 0)])
def test_memory_that_begins_anywhere(offsets: tuple[int, int], dtype: torch.dtype) -> None:
    sizes = [5000, 33, 4096]
    a, b = (draw(sizes, dtype, seed, offset) for seed, offset in enumerate(offsets))
    assert_same_as_on_the_cpu(SUMS, [a, b, []], through_simt)
    assert_same_as_on_the_cpu(ABSOLUTE, [a, b], through_simt)
    assert_same_as_on_the_cpu(DIFFERENCE, [a, b, FACTOR], through_simt)


@pytest.mark.parametrize("seed", [1, 2, 20])
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_in_any_order(seed: int, dtype: torch.dtype) -> None:
    lists = [draw([3 * BLOCK + 7, 100, 2049], dtype, s) for s in range(3)]
    with simt_options(seed=seed, host_threads=1 + seed % 2):
        assert_same_as_on_the_cpu(SUMS, lists, through_simt)
        assert_same_as_on_the_cpu(ABSOLUTE, lists[:2], through_simt)
        assert_same_as_on_the_cpu(DIFFERENCE, [*lists[:2], FACTOR], through_simt)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1.0, -0.0, 1e-30, 1e300, float("nan"), 1 + 2.0**-30])
def test_unusual_values(factor: float, dtype: torch.dtype) -> None:
    a, b = special(dtype)
    scale = torch.tensor(factor, dtype=torch.float64)
    assert_same_as_on_the_cpu(DIFFERENCE, [a, b, scale], through_simt)
    assert_same_as_on_the_cpu(SUMS, [a, b, []], through_simt)
    assert_same_as_on_the_cpu(ABSOLUTE, [a, b], through_simt)
    finite = [a[0][(a[0] - b[0]).isfinite()]], [b[0][(a[0] - b[0]).isfinite()]]
    assert_same_as_on_the_cpu(SUMS, [*finite, finite[0]], through_simt)


@pytest.mark.parametrize("factor", [torch.tensor(1.7), torch.tensor(3), torch.tensor([0.1])])
def test_factors_of_any_type(factor: torch.Tensor) -> None:
    a, b = (draw([40, 1000], torch.float32, seed) for seed in range(2))
    assert_same_as_on_the_cpu(DIFFERENCE, [a, b, factor], through_simt)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_value_of_nan_is_seen(dtype: torch.dtype) -> None:
    for place in (0, 31, 32, 1024, BLOCK - 1, BLOCK, BLOCK + 5):
        student, target = (draw([70, BLOCK + 6], dtype, seed) for seed in range(2))
        student[1][place] = torch.nan
        sums = through_simt(SUMS, [student, target, target])
        assert sums.isnan().tolist() == [True, False]
        assert sums[1] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_derivatives(dtype: torch.dtype) -> None:
    def gradients(lists: list[list[Any]]) -> list[torch.Tensor]:
        distance = 3 * trajectory_distance(*lists)
        return [distance.detach(), *torch.autograd.grad(distance, [x for xs in lists for x in xs])]

    lists = [
        [x.view(-1, 7).requires_grad_() for x in draw([350, 7, 21_000], dtype, seed)]
        for seed in range(3)
    ]
    with kernel_calls.use_module(load_simt()):
        found = gradients(lists)
    for i, (x, y) in enumerate(zip(found, gradients(lists), strict=True)):
        assert_same_values(x, y, f"gradient {i}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GROUPED)
def test_several_totals(name: str, dtype: torch.dtype) -> None:
    lists, groups, batch_dims = grouped(name, dtype)
    totals = OPS.trajectory_sums(*lists, groups, batch_dims)[0]
    factors = torch.randn(totals.shape, dtype=torch.float64)
    for starts in (lists[2], []):
        assert_same_as_on_the_cpu(
            OPS.trajectory_sums, [*lists[:2], starts, groups, batch_dims], through_simt
        )
    assert_same_as_on_the_cpu(OPS.absolute_sums, [*lists[:2], groups, batch_dims], through_simt)
    assert_same_as_on_the_cpu(
        OPS.scaled_difference, [*lists[:2], factors, groups, batch_dims], through_simt
    )


def test_any_layout() -> None:
    a, b = (torch.randn(8, 6, 40).permute(2, 0, 1) for _ in range(2))
    for x, y in ((a, b), (a[::2], b[::2]), (a[:1].expand(9, 8, 6), b[:9])):
        with kernel_calls.use_module(load_simt()):
            found = squared_distance(x, y)
        assert found == squared_distance(x, y)


def test_wrong_lists_never_reach_the_kernels() -> None:
    one, two = torch.zeros(3), torch.zeros(4)
    for arguments in ([[one], [two], []], [[one], [one.double()], []], [[one], [one], [one, two]]):
        with pytest.raises(ValueError, match="has other sizes, dtypes or devices than it must"):
            through_simt(SUMS, arguments)
    with pytest.raises(ValueError, match="b has other sizes"):
        through_simt(DIFFERENCE, [[one], [two], FACTOR])
    simt = load_simt()
    wrong = {
        "target has another number of entries than there are tensors": {"target": []},
        "total_of has another number of entries than there are tensors": {"total_of": []},
        "total_of must have indices of totals": {"total_of": [1]},
    }
    for message, change in wrong.items():
        arguments = {
            "student": [0], "target": [0], "start": None, "sizes": [0], "total_of": [0],
            "n_totals": 1, "bfloat16": False, "workspace": 0, "sums": 0, "device": 0, "stream": 0,
        }  # fmt: skip
        with pytest.raises(ValueError, match=message):
            simt.trajectory_sums(**arguments | change)


def test_failures_of_the_runtime_have_a_class_of_their_own() -> None:
    nothing: dict[str, Any] = {name: [] for name in ("a", "b", "out", "sizes", "total_of")}
    nothing |= {"n_totals": 0, "bfloat16": False, "factors": 0}
    with pytest.raises(CudaError, match="cudaErrorInvalidDevice"):
        kernel_calls.run(
            lambda **place: load_simt().scaled_difference(**nothing, **{**place, "device": 99}),
            torch.device("cpu"),
        )


# --- Which blocks are launched --------------------------------------------------------------------


def test_one_launch_has_a_small_network() -> None:
    plan = load_simt().check_plan_pieces(LISTS["network"], BLOCK)
    assert plan == [(0, 10, 0, 1 + 3 + 9 + 3 + 2 + 1, 32)]


def test_launches_cover_every_piece_once() -> None:
    plan = load_simt().check_plan_pieces
    assert plan([], BLOCK) == []
    assert plan([0, 0], BLOCK) == []
    assert plan([1] * 33, BLOCK) == [(0, 33, 0, 33, 256)]
    assert plan([5] * 256, 4) == [(0, 256, 0, 512, 256)]
    assert plan([5] * 257, 4) == [(0, 256, 0, 512, 256), (256, 257, 512, 2, 32)]
    assert plan([0] * 256 + [9], 4) == [(256, 257, 0, 3, 32)]
