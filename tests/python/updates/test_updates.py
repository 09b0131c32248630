# SPDX-License-Identifier: Apache-2.0
"""Steps of optimisers: their bits, their derivatives, and what torch makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from ddkern import _core  # noqa: E402
from ddkern.updates import (  # noqa: E402
    axpy,
    axpy_reference,
    ema,
    ema_reference,
    sam_ascent,
    sam_ascent_reference,
    sgd_step,
    sgd_step_reference,
)
from reference.matching import canonical_sum_of_squares  # noqa: E402

SIZES = (*range(1, 71), 16_384, 40_001)
F = np.float32


def vectors(n: Any, count: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator, dtype=dtype) for _ in range(count)]


def same(found: Tensor, expected: Any) -> bool:
    bits = found.detach().numpy().view(np.int32)
    return np.array_equal(bits, np.asarray(expected, np.float32).view(np.int32))


@pytest.mark.sanitize
def test_bits_of_the_definition(isa: str) -> None:
    for n in SIZES:
        x, y, z = vectors(n, 3)
        a, b, c = (v.numpy() for v in (x, y, z))
        assert same(axpy(x, -0.3, y), a + F(-0.3) * b), (isa, n)
        assert same(ema(x, y, decay=0.99), F(0.99) * a + F(1 - 0.99) * b), (isa, n)
        velocity = F(0.9) * b + c
        for found, expected in zip(
            sgd_step(x, y, z, lr=0.05, momentum=0.9),
            (a - F(0.05) * velocity, velocity),
            strict=True,
        ):
            assert same(found, expected), (isa, n)


@pytest.mark.sanitize
def test_bits_of_the_step_up(isa: str) -> None:
    for n in SIZES:
        g, p = vectors((2, n), 2, seed=n)
        g64, p64 = g.double().numpy(), p.double().numpy()
        plain, adaptive = sam_ascent(g, rho=0.05), sam_ascent(g, rho=0.05, parameters=p)
        zeros = np.zeros(n)
        for row in range(2):
            factor = F(0.05 / np.sqrt(canonical_sum_of_squares([g64[row]], [zeros])))
            assert same(plain[row], factor * g[row].numpy()), (isa, n)
            weighted = g64[row] * p64[row]
            factor = F(0.05 / np.sqrt(canonical_sum_of_squares([weighted], [zeros])))
            size = p[row].numpy()
            assert same(adaptive[row], factor * (size * size * g[row].numpy())), (isa, n)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    x, y, z = vectors(1_000_003, 3)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            step = sgd_step(x, y, z, lr=0.1, momentum=0.9)
            found.append([axpy(x, 2.0, y), *step, sam_ascent(x, rho=1.0, parameters=y)])
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_values_are_those_of_the_references(dtype: torch.dtype) -> None:
    x, y, z = (v.to(dtype) for v in vectors((3, 500), 3))
    for found, expected in (
        (axpy(x, 0.7, y), axpy_reference(x, 0.7, y)),
        (axpy(x, torch.tensor(0.7), y), axpy_reference(x, torch.tensor(0.7), y)),
        (ema(x, y, decay=0.9), ema_reference(x, y, decay=0.9)),
        (sam_ascent(x, rho=0.1), sam_ascent_reference(x, rho=0.1)),
        (
            sam_ascent(x, rho=0.1, parameters=y),
            sam_ascent_reference(x, rho=0.1, parameters=y),
        ),
        *zip(
            sgd_step(x, y, z, lr=0.1, momentum=0.9),
            sgd_step_reference(x, y, z, lr=0.1, momentum=0.9),
            strict=True,
        ),
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_place(dtype: torch.dtype) -> None:
    x, y, z = vectors(1000, 3, dtype)
    for layout in (lambda v: v.clone(), lambda v: torch.stack([v, v], -1)[:, 0]):
        average, theta, velocity = layout(x), layout(x), layout(y)
        assert ema(average, y, decay=0.9, in_place=True) is average
        assert torch.equal(average, ema(x, y, decay=0.9))
        stepped = sgd_step(theta, velocity, z, lr=0.1, momentum=0.9, in_place=True)
        assert stepped[0] is theta
        assert stepped[1] is velocity
        for found, expected in zip(stepped, sgd_step(x, y, z, lr=0.1, momentum=0.9), strict=True):
            assert torch.equal(found, expected)


def test_autograd_notices_what_was_written() -> None:
    w = torch.ones(5, requires_grad=True)
    average = torch.ones(5)
    product = (w * average).sum()
    ema(average, torch.zeros(5), decay=0.5, in_place=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_derivatives_of_any_order() -> None:
    x, y, z = (v.requires_grad_() for v in vectors(6, 3, torch.float64))
    lr = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(axpy, (x, lr, y))
    assert torch.autograd.gradgradcheck(axpy, (x, lr, y))
    assert torch.autograd.gradcheck(lambda a, b: ema(a, b, decay=0.9), (x, y))

    def step(*arguments: Tensor) -> Any:
        return sgd_step(*arguments[:3], lr=arguments[3], momentum=0.9)

    assert torch.autograd.gradcheck(step, (x, y, z, lr))
    assert torch.autograd.gradgradcheck(step, (x, y, z, lr))


def test_derivatives_of_the_kernels() -> None:
    def gradients(function: Any) -> tuple[Tensor, ...]:
        new, velocity = function(*tensors, lr=lr, momentum=0.9)
        return torch.autograd.grad((new**2).sum() + velocity.sum(), [*tensors, lr])

    tensors = [v.requires_grad_() for v in vectors(5000, 3)]
    lr = torch.tensor(0.3, requires_grad=True)
    for ours, theirs in zip(gradients(sgd_step), gradients(sgd_step_reference), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_recorded_or_not_the_bits_are_the_same() -> None:
    x, y, z = vectors(5000, 3)
    free = sgd_step(x, y, z, lr=0.3, momentum=0.9)
    recorded = sgd_step(x.requires_grad_(), y, z, lr=0.3, momentum=0.9)
    for one, two in zip(free, recorded, strict=True):
        assert torch.equal(one, two)
        assert two.requires_grad == (two is recorded[0])


def test_opcheck() -> None:
    x, y = (v.requires_grad_() for v in vectors(50, 2))
    beta = torch.tensor(0.3, requires_grad=True)
    torch.library.opcheck(torch.ops.ddkern.linear_update.default, (x, 1.0, y, beta))


def test_compiles_into_one_graph() -> None:
    def step(theta: Tensor, velocity: Tensor, gradient: Tensor, lr: Tensor) -> Any:
        return sgd_step(theta, velocity, gradient, lr=lr, momentum=0.9)

    arguments = (*vectors(100, 3), torch.tensor(0.1))
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(*arguments), step(*arguments), strict=True):
        assert torch.equal(found, expected)


def test_steps_up_without_a_direction() -> None:
    g = torch.tensor([[0.0, 0.0], [3.0, 4.0], [torch.nan, 1.0]])
    for function in (sam_ascent, sam_ascent_reference):
        step = function(g, rho=1.0)
        assert step[0].tolist() == [0.0, 0.0]
        assert step[1].tolist() == [F(0.2) * F(3), F(0.2) * F(4)]
        assert step[2].isnan().all()
    assert not sam_ascent(g.requires_grad_(), rho=1.0).requires_grad


def test_nothing_and_any_layout() -> None:
    empty = torch.zeros(0)
    assert axpy(empty, 1.0, empty).shape == (0,)
    assert sam_ascent(torch.zeros(3, 0), rho=1.0).shape == (3, 0)
    x, y = (v.T for v in vectors((40, 7), 2))
    assert torch.equal(axpy(x, 2.0, y), axpy(x.contiguous(), 2.0, y.contiguous()))
    assert torch.equal(sam_ascent(x, rho=1.0), sam_ascent(x.contiguous(), rho=1.0))
    assert axpy(torch.tensor(1.0), 2.0, torch.tensor(3.0)).item() == 7


GOOD = torch.zeros(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: axpy(GOOD, 1.0, torch.zeros(4)), ValueError, r"y has shape \(4,\).*must have"),
        (lambda: axpy(GOOD, 1.0, GOOD.double()), ValueError, "y has shape .*torch.float64"),
        (lambda: axpy(GOOD, 1.0, [1.0]), TypeError, "y must be a tensor of floating point"),
        (lambda: axpy(GOOD, GOOD, GOOD), ValueError, r"a has shape \(3,\); it must be one number"),
        (lambda: axpy(GOOD, "1", GOOD), TypeError, "a must be a number or a tensor of one"),
        (lambda: ema(GOOD, GOOD.int(), decay=1.0), TypeError, "x must be a tensor of floating"),
        (
            lambda: sgd_step(GOOD, GOOD, torch.zeros(2), lr=1.0, momentum=0.0),
            ValueError,
            "gradient has shape",
        ),
        (lambda: sam_ascent(GOOD, rho=-1.0), ValueError, "rho=-1.0; it must be a finite number"),
        (lambda: sam_ascent(torch.tensor(1.0), rho=1.0), ValueError, "gradient has no axes"),
        (
            lambda: sam_ascent(GOOD, rho=1.0, parameters=torch.zeros(4)),
            ValueError,
            "parameters has shape",
        ),
    ],
)
def test_wrong_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_bindings_keep_memory_safe() -> None:
    three, four = np.zeros(3, F), np.zeros(4, F)
    with pytest.raises(ValueError, match="y has another dtype, shape or layout"):
        _core.linear_update(x=three, y=four, out=three, alpha=1.0, beta=1.0, n_threads=1)
    with pytest.raises(ValueError, match="gradient must have two axes"):
        _core.ascent_step(gradient=three, size=None, out=three, rho=1.0, n_threads=1)
    four.flags.writeable = False
    with pytest.raises(ValueError, match="out has another dtype, shape or layout"):
        _core.linear_update(x=four, y=four, out=four, alpha=1.0, beta=1.0, n_threads=1)
