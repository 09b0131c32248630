# SPDX-License-Identifier: Apache-2.0
"""The distance of trajectory matching: kernels, derivatives, and what torch makes of them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from ddkern import _core  # noqa: E402
from ddkern.losses import (  # noqa: E402
    absolute_distance,
    absolute_distance_reference,
    squared_distance,
    squared_distance_reference,
    trajectory_distance,
    trajectory_distance_reference,
)
from reference.matching import (  # noqa: E402
    canonical_sum_of_magnitudes,
    canonical_sum_of_squares,
    exact_sum_of_squares,
)

OPS = torch.ops.ddkern

SHAPES = [(3, 3, 3, 16), (16,), (), (31, 33), (20_000,), (1,), (32_769,)]


def parameters(seed: int, dtype: torch.dtype, **options: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator).to(dtype).requires_grad_(**options)
        for shape in SHAPES
    ]


def as_float64(tensors: list[Tensor]) -> list[np.ndarray]:
    return [tensor.detach().double().numpy() for tensor in tensors]


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_have_the_bits_of_the_definition(isa: str, dtype: torch.dtype) -> None:
    student, target, start = (parameters(seed, dtype, requires_grad=False) for seed in range(3))
    sums = OPS.trajectory_sums(student, target, start, [], 0)
    for found, other in zip(sums.tolist(), (student, start), strict=True):
        assert found == canonical_sum_of_squares(as_float64(other), as_float64(target)), isa
        exact = exact_sum_of_squares(as_float64(other), as_float64(target))
        assert found == pytest.approx(exact, rel=600 * 2**-53)
    alone = OPS.trajectory_sums(student, target, [], [], 0)
    assert alone.tolist() == [sums[0].item(), 0.0]
    total = OPS.absolute_sums(student, target, [], 0).item()
    assert total == canonical_sum_of_magnitudes(as_float64(student), as_float64(target)), isa


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_differences_have_the_bits_of_torch(isa: str, dtype: torch.dtype) -> None:
    a, b = (parameters(seed, dtype, requires_grad=False) for seed in range(2))
    factor = torch.tensor(1.7)
    for found, x, y in zip(OPS.scaled_difference(a, b, factor, [], 0), a, b, strict=True):
        expected = (factor * (x.float() - y.float())).to(dtype)
        assert found.dtype == dtype
        assert found.shape == x.shape
        assert torch.equal(found, expected), isa


def test_any_number_of_threads_gives_the_same_bits() -> None:
    big = [torch.randn(1_000_003), torch.randn(77, 1001)]
    other = [torch.randn_like(x) for x in big]
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(squared_distance(big, other).item())
    finally:
        torch.set_num_threads(before)
    assert len(set(found)) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16])
def test_values_and_gradients_are_those_of_the_reference(dtype: torch.dtype) -> None:
    lists = [parameters(seed, dtype) for seed in range(3)]
    flat = [tensor for tensors in lists for tensor in tensors]
    found, expected = trajectory_distance(*lists), trajectory_distance_reference(*lists)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    tolerance = {torch.bfloat16: 2**-7, torch.float16: 2**-9}.get(dtype, 1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, flat), torch.autograd.grad(3 * expected, flat), strict=True
    ):
        assert ours.dtype == dtype
        torch.testing.assert_close(
            ours, theirs, rtol=tolerance, atol=1e-6 * theirs.abs().max().item()
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16])
def test_absolute_distances_are_those_of_the_reference(dtype: torch.dtype) -> None:
    lists = [parameters(seed, dtype) for seed in range(2)]
    flat = [tensor for tensors in lists for tensor in tensors]
    found, expected = absolute_distance(*lists), absolute_distance_reference(*lists)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, flat), torch.autograd.grad(3 * expected, flat), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert absolute_distance(lists[0], lists[0]) == 0


def networks(seed: int, batch: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(5, 7), (), (20_000,), (3,)]
    return [torch.randn((*batch, *shape), generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_groups_are_lists_of_their_own(dtype: torch.dtype) -> None:
    student, target, start = (networks(seed, (), dtype) for seed in range(3))
    found = trajectory_distance(student, target, start, groups=[7, -1, 7, 3])
    expected = [
        trajectory_distance(*([xs[i] for i in chosen] for xs in (student, target, start)))
        for chosen in ([1], [3], [0, 2])
    ]
    assert torch.equal(found, torch.stack(expected))
    squares = squared_distance(student, target, groups=range(4))
    magnitudes = absolute_distance(student, target, groups=range(4))
    assert squares.dtype == magnitudes.dtype == found.dtype
    for i, (x, y) in enumerate(zip(student, target, strict=True)):
        assert squares[i] == squared_distance(x, y)
        assert magnitudes[i] == absolute_distance(x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("groups", [None, [0, 1, 1, 0]])
def test_batches_are_their_members_one_by_one(groups: list[int] | None, dtype: torch.dtype) -> None:
    """Students of every step against two targets, from one start: nothing is copied."""
    student = networks(0, (3, 1), dtype)
    target, start = networks(1, (2,), dtype), networks(2, (1, 1), dtype)
    lists = [[x.requires_grad_() for x in xs] for xs in (student, target, start)]
    found = trajectory_distance(
        lists[0], [x[None] for x in target], lists[2], groups=groups, batch_dims=2
    )
    assert found.shape == ((3, 2) if groups is None else (3, 2, 2))
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype)
    one_by_one = torch.stack(
        [
            trajectory_distance(
                [x[i, 0] for x in student],
                [x[j] for x in target],
                [x[0, 0] for x in start],
                groups=groups,
            )
            for i in range(3)
            for j in range(2)
        ]
    ).view(found.shape)
    assert torch.equal(found, one_by_one)
    flat = [x for xs in lists for x in xs]
    rtol = 2**-6 if dtype == torch.bfloat16 else 1e-5
    for ours, theirs in zip(
        torch.autograd.grad((weights * found).sum(), flat),
        torch.autograd.grad((weights * one_by_one).sum(), flat),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol * float(theirs.abs().max()))
    for distance, reference in (
        (squared_distance, squared_distance_reference),
        (absolute_distance, absolute_distance_reference),
    ):
        pair = (student, [x[None] for x in target])
        torch.testing.assert_close(
            distance(*pair, groups=groups, batch_dims=2),
            reference(*pair, groups=groups, batch_dims=2),
            rtol=1e-6,
            atol=0,
        )


def test_derivatives_of_any_order_in_batches() -> None:
    lists = [[torch.randn(2, 3), torch.randn(2, 1), torch.randn(2, 2, 2)] for _ in range(3)]
    flat = [x.double().requires_grad_() for xs in lists for x in xs]

    def distance(*tensors: Tensor) -> Tensor:
        return trajectory_distance(
            tensors[:3], tensors[3:6], tensors[6:], groups=[0, 1, 0], batch_dims=1
        )

    assert torch.autograd.gradcheck(distance, flat)
    assert torch.autograd.gradgradcheck(distance, flat)


def test_functions_of_torch_func_go_through() -> None:
    student, target, start = (torch.randn(300) for _ in range(3))
    found = torch.func.grad(trajectory_distance)(student, target, start)
    student.requires_grad_()
    (expected,) = torch.autograd.grad(trajectory_distance(student, target, start), student)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    many = torch.func.vmap(trajectory_distance, in_dims=(0, None, None))
    batch = torch.stack([start, student.detach()])
    assert many(batch, target, start)[0] == 1


def test_a_batch_of_nothing() -> None:
    empty = torch.zeros(0, 5)
    assert trajectory_distance(empty, empty, empty, batch_dims=1).shape == (0,)


def test_a_minus_that_torch_has_not_carried_out() -> None:
    view = torch.tensor([2 + 3j]).conj().imag
    assert view.is_neg()
    assert view.is_contiguous()
    assert squared_distance(torch.ones(1), view) == 16


def test_tensors_alone_and_in_any_layout() -> None:
    a, b, c = (torch.randn(8, 6, 4).permute(2, 0, 1) for _ in range(3))
    torch.testing.assert_close(
        trajectory_distance(a, b, c), trajectory_distance_reference(a, b, c), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        squared_distance(a[::2], b[::2]), squared_distance_reference(a[::2], b[::2])
    )


def test_derivatives_of_any_order() -> None:
    lists = [
        [torch.randn(3, 2, dtype=torch.float64, requires_grad=True), torch.randn(4).double()]
        for _ in range(3)
    ]
    lists[1][1].requires_grad_()

    def distance(*tensors: Tensor) -> Tensor:
        pairs = list(zip(tensors[:3], tensors[3:], strict=True))
        return trajectory_distance(*[list(pair) for pair in pairs])

    sources = [pair[0] for pair in lists] + [pair[1] for pair in lists]
    assert torch.autograd.gradcheck(distance, sources)
    assert torch.autograd.gradgradcheck(distance, sources)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_second_derivatives_of_the_kernels(dtype: torch.dtype) -> None:
    lists = [parameters(seed, dtype) for seed in range(3)]

    def product(distance: Any) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(distance(*lists), lists[0], create_graph=True)
        total = sum((g.float() ** 2).sum() for g in first)
        return torch.autograd.grad(total, [*lists[0], *lists[1], *lists[2]])

    for ours, theirs in zip(
        product(trajectory_distance), product(trajectory_distance_reference), strict=True
    ):
        rtol = 1e-4 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol * theirs.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype) -> None:
    lists = [
        [t.detach().requires_grad_() for t in parameters(seed, dtype)[:3]] for seed in range(3)
    ]
    torch.library.opcheck(OPS.trajectory_sums.default, (*lists, [], 0))
    torch.library.opcheck(OPS.trajectory_sums.default, (*lists[:2], [], [], 0))
    torch.library.opcheck(OPS.absolute_sums.default, (*lists[:2], [], 0))
    factor = torch.tensor(0.5, requires_grad=True)
    torch.library.opcheck(OPS.scaled_difference.default, (*lists[:2], factor, [], 0))
    batches = [[x.detach()[None].repeat(2, *[1] * x.dim()) for x in xs] for xs in lists]
    torch.library.opcheck(OPS.trajectory_sums.default, (*batches, [0, 1, 0], 1))


def test_compiles_into_one_graph() -> None:
    lists = [parameters(seed, torch.float32) for seed in range(3)]
    compiled = torch.compile(trajectory_distance, fullgraph=True, backend="aot_eager")
    found = compiled(*lists)
    assert found.item() == trajectory_distance(*lists).item()
    ours = torch.autograd.grad(found, lists[0])
    theirs = torch.autograd.grad(trajectory_distance(*lists), lists[0])
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y)


def test_nan_spreads() -> None:
    student, target, start = torch.ones(40), torch.zeros(40), torch.full((40,), 2.0)
    student[37] = torch.nan
    assert torch.isnan(trajectory_distance(student, target, start))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_start_that_is_the_target(dtype: torch.dtype) -> None:
    same = torch.arange(5, dtype=dtype)
    with pytest.raises(ValueError, match="start equals target; the distance between them must not"):
        trajectory_distance(torch.ones(5, dtype=dtype), same, same.clone())
    batch = torch.stack([same + 1, same])
    with pytest.raises(ValueError, match=r"start equals target at \(1,\); the distance"):
        trajectory_distance(batch, same[None], batch, batch_dims=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_gradients_are_those_of_small_ones(dtype: torch.dtype) -> None:
    """From some size on their memory comes from elsewhere."""
    a, b = torch.randn(3_000_000).to(dtype), torch.randn(3_000_000).to(dtype)
    (whole,) = OPS.scaled_difference([a], [b], torch.tensor(0.3), [], 0)
    parts = OPS.scaled_difference(
        list(a.split(1000)), list(b.split(1000)), torch.tensor(0.3), [], 0
    )
    assert (whole.shape, whole.dtype) == (a.shape, dtype)
    assert torch.equal(whole, torch.cat(parts))


GOOD = [torch.zeros(2, 3), torch.zeros(4)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": GOOD[:1]}, "target has 1 tensors and student 2; they must have the same"),
        ({"student": [], "target": [], "start": []}, "student has 0 tensors"),
        (
            {"start": [GOOD[0], torch.zeros(5)]},
            r"start\[1\] has shape \(5,\).*must have shape \(4,\)",
        ),
        ({"target": [GOOD[0], GOOD[1].double()]}, r"target\[1\] .*torch.float64.*torch.float32"),
        ({"student": [GOOD[0], GOOD[1].double()]}, r"student\[1\] .*torch.float64"),
        ({"start": [GOOD[0], np.zeros(4)]}, r"start\[1\] must be a tensor of floating point"),
        ({"start": [GOOD[0], torch.zeros(4, dtype=torch.int64)]}, r"start\[1\] must be a tensor"),
        ({"groups": [0]}, "groups has 1 ids; it must have 2, one a tensor of student"),
        ({"groups": [0, 1.5]}, "groups=1.5 is a float; it must hold integers"),
        ({"batch_dims": -1}, "batch_dims=-1; it must be an integer of at least 0"),
        ({"batch_dims": 2}, r"student\[1\] has shape \(4,\); it must have batch_dims=2 axes"),
        ({"batch_dims": 1}, r"have shapes \[\(2,\), \(4,\)\]; they must be alike, or 1"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    arguments = {"student": GOOD, "target": GOOD, "start": GOOD} | changes
    with pytest.raises((TypeError, ValueError), match=message):
        trajectory_distance(**arguments)


def test_bindings_check_their_lists() -> None:
    one = torch.zeros(3)
    right: dict[str, Any] = {
        "student": [one.data_ptr()],
        "target": [one.data_ptr()],
        "start": None,
        "sizes": [3],
        "total_of": [0],
        "n_totals": 1,
        "bfloat16": False,
        "n_threads": 1,
    }
    assert _core.trajectory_sums(**right).tolist() == [[0.0], [0.0]]
    for name, wrong in (("target", []), ("start", []), ("student", []), ("total_of", [])):
        with pytest.raises(ValueError, match=f"{name} has another number of entries"):
            _core.trajectory_sums(**right | {name: wrong})
    for wrong in ([1], [-1]):
        with pytest.raises(ValueError, match="total_of must have indices of totals"):
            _core.trajectory_sums(**right | {"total_of": wrong})


def test_wrong_lists_never_reach_the_kernels() -> None:
    one, two = torch.zeros(3), torch.zeros(4)
    for lists in ([[one], [two], []], [[one], [one.double()], []], [[one], [one], [one, two]]):
        with pytest.raises(ValueError, match="has other sizes, dtypes or devices than it must"):
            OPS.trajectory_sums(*lists, [], 0)
    with pytest.raises(ValueError, match="b has other sizes"):
        OPS.scaled_difference([one], [two], torch.tensor(1.0), [], 0)


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="counts references as CPython does")
def test_memory_of_results_is_used_again_once_it_is_free() -> None:
    a, b = torch.randn(100_000), torch.randn(100_000)
    one = torch.tensor(1.0)
    (first,) = OPS.scaled_difference([a], [b], one, [], 0)
    (second,) = OPS.scaled_difference([b], [a], one, [], 0)
    assert second.data_ptr() != first.data_ptr()
    kept = second.clone()
    address, view = first.data_ptr(), first[5:7]
    del first
    (third,) = OPS.scaled_difference([a], [a], one, [], 0)
    assert third.data_ptr() not in (address, second.data_ptr()), "a view still holds the memory"
    assert torch.equal(view, (a - b)[5:7])
    del view
    (fourth,) = OPS.scaled_difference([a], [b], one, [], 0)
    assert fourth.data_ptr() == address
    assert torch.equal(second, kept)
    assert torch.equal(fourth, a - b)
    array = fourth.numpy()
    del fourth
    (fifth,) = OPS.scaled_difference([a], [a], one, [], 0)
    assert fifth.data_ptr() != address, "an array holds it"
    np.testing.assert_array_equal(array, (a - b).numpy())
