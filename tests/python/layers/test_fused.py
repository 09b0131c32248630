# SPDX-License-Identifier: Apache-2.0
"""The fused norm, ReLU and pooling: float64 within a bound, the same bits everywhere, autograd."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from ddkern import _core, kernel_calls
from ddkern.layers import fused, norm_relu_pool, norm_relu_pool_reference
from helpers.isa import forced_isa
from reference import norm_relu_pool as twin

EPS = 1e-5
# Unit roundoffs.
U32, U16 = 2.0**-24, 2.0**-8

# Tails of pairs of registers, of blocks and of the pieces that threads take, with odd sides.
SHAPES = [
    (2, 1, 2, 2),
    (1, 3, 5, 4),
    (2, 5, 4, 7),
    (1, 16, 3, 3),
    (2, 17, 6, 2),
    (1, 63, 2, 5),
    (3, 128, 4, 4),
    (1, 130, 9, 8),
]
DTYPES = [torch.float32, torch.bfloat16]


def problem(
    shape: tuple[int, int, int, int], dtype: Any, *, offset: float = 0.5, seed: int = 0
) -> dict[str, Any]:
    """Arguments and an incoming gradient, all different, with signs of both kinds."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Any:
        return torch.randn(size, generator=generator)

    n, c, h, w = shape
    return {
        "x": (normal(n, c, h, w) * 1.7 + offset).to(dtype),
        "weight": normal(c),
        "bias": normal(c) / 2,
        "grad_out": normal(n, c, h // 2, w // 2).to(dtype),
    }


def run(given: dict[str, Any], function: Any = norm_relu_pool, eps: float = EPS) -> tuple[Any, ...]:
    """The output, and the gradients of x, weight and bias."""
    leaves = [given[name].detach().clone().requires_grad_() for name in ("x", "weight", "bias")]
    out = function(*leaves, eps)
    return (out.detach(), *torch.autograd.grad(out, leaves, given["grad_out"].to(out.dtype)))


def in_float64(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value.double() for name, value in given.items()}


def assert_within_bounds(given: dict[str, Any], found: tuple[Any, ...]) -> None:
    """Compare with the float64 twin of the same input.

    With L = w / 2 + h + 4, longer than any chain of additions, a sum of L float32 terms is off by
    at most L u of the sum of their magnitudes. So the variance is relatively off by L u and rstd by
    half of that; the mean, once corrected, by its own rounding, which moves the unit values by
    u |mean| rstd. What is multiplied, added or rounded besides fits into 12 u. A result in
    bfloat16 is rounded once more. Only where the sign of z is beyond doubt is the mask the twin's.
    """
    x, weight, bias, grad_out = (
        given[name].double().numpy() for name in ("x", "weight", "bias", "grad_out")
    )
    out, grad_x, grad_weight, grad_bias = (value.double().numpy() for value in found)
    h, w = x.shape[2:]
    stored = U16 if given["x"].dtype == torch.bfloat16 else 0.0
    chain = w / 2 + h + 4
    seen = twin.forward(x, weight, bias, EPS)
    shift = 4 * U32 * (np.abs(seen.mean) * seen.rstd)[:, :, None, None]
    of_unit = (chain + 12) * U32 * np.abs(seen.unit) + shift
    of_z = of_unit * np.abs(weight[:, None, None]) + 4 * U32 * (
        np.abs(seen.z) + np.abs(bias[:, None, None])
    )
    assert (np.abs(seen.z) > of_z).all()

    def worst(values: Any) -> Any:
        return values.max((2, 3), keepdims=True)

    assert (np.abs(out - seen.out) <= worst(of_z) + stored * np.abs(seen.out)).all()

    expected_x, expected_weight, expected_bias, g = twin.gradients(grad_out, seen, weight)
    size = np.abs(g)
    of_sum_g = (chain + 12) * U32 * size.sum((2, 3))
    of_sum_gu = (size * ((chain + 12) * U32 * np.abs(seen.unit) + of_unit)).sum((2, 3))
    assert (
        np.abs(grad_bias - expected_bias) <= of_sum_g.sum(0) + U32 * np.abs(expected_bias)
    ).all()
    assert (
        np.abs(grad_weight - expected_weight) <= of_sum_gu.sum(0) + U32 * np.abs(expected_weight)
    ).all()
    mean_g = (size.sum((2, 3)) / (h * w))[:, :, None, None]
    mean_gu = ((size * np.abs(seen.unit)).sum((2, 3)) / (h * w))[:, :, None, None]
    terms = size + mean_g + np.abs(seen.unit) * mean_gu
    off = (
        (chain + 12) * U32 * terms
        + (of_sum_g / (h * w))[:, :, None, None]
        + np.abs(seen.unit) * (of_sum_gu / (h * w))[:, :, None, None]
        + of_unit * mean_gu
    )
    scale = np.abs(weight[None, :] * seen.rstd)[:, :, None, None]
    assert (np.abs(grad_x - expected_x) <= scale * off + stored * np.abs(expected_x)).all()


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_against_float64(isa: str, shape: tuple[int, int, int, int], dtype: Any) -> None:
    given = problem(shape, dtype)
    assert_within_bounds(given, run(given))


def test_on_maps_of_a_network(isa: str) -> None:
    given = problem((2, 24, 32, 32), torch.float32)
    assert_within_bounds(given, run(given))


def bits(values: tuple[Any, ...]) -> list[bytes]:
    return [value.contiguous().view(torch.uint8).numpy().tobytes() for value in values]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 130, 5, 7), (5, 19, 8, 8)])
def test_same_bits_at_every_level(isa: str, shape: tuple[int, int, int, int], dtype: Any) -> None:
    given = problem(shape, dtype)
    given["x"][0, 0] *= 1e-38  # towards denormals
    found = run(given)
    with forced_isa("base"):
        assert bits(found) == bits(run(given))


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", [(1, 200, 32, 32), (13, 70, 18, 16)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int, int], dtype: Any
) -> None:
    given = problem(shape, dtype)
    found = []
    for n_threads in (1, 2, 3, 8):
        monkeypatch.setattr(kernel_calls, "n_threads", lambda n_threads=n_threads: n_threads)
        found.append(bits(run(given)))
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize(("ours", "of_torch", "expected"), [(5, 3, 3), (2, 7, 2)])
def test_threads_of_torch_are_a_limit(
    monkeypatch: pytest.MonkeyPatch, ours: int, of_torch: int, expected: int
) -> None:
    asked: list[int] = []
    forward = _core.norm_relu_pool_forward

    def spy(**arguments: Any) -> None:
        asked.append(arguments["n_threads"])
        forward(**arguments)

    monkeypatch.setattr(_core, "norm_relu_pool_forward", spy)
    monkeypatch.setattr(_core, "max_threads", lambda: ours)
    monkeypatch.setattr(torch, "get_num_threads", lambda: of_torch)
    run(problem((1, 2, 2, 2), torch.float32))
    assert asked == [expected]


def test_denormals_survive_the_mode_of_the_caller() -> None:
    given = problem((2, 3, 4, 4), torch.float32)
    given["x"] *= 1e-39
    expected = bits(run(given, eps=0.0))
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    try:
        assert bits(run(given, eps=0.0)) == expected
    finally:
        torch.set_flush_denormal(False)


def test_large_mean_costs_less_than_in_torch(isa: str) -> None:
    given = problem((4, 40, 32, 32), torch.float32, offset=1000.0)
    exact = run(in_float64(given), norm_relu_pool_reference)
    ours, theirs = (run(given, f) for f in (norm_relu_pool, norm_relu_pool_reference))
    for value, other, right in zip(ours, theirs, exact, strict=True):
        error, others = (v.double().sub(right).square().mean().sqrt() for v in (value, other))
        assert error <= others
    # The mean itself is rounded, by up to 2^-15 at 1000.
    assert (ours[0].double() - exact[0]).abs().max() < 1.1 * 2.0**-15 * given["weight"].abs().max()


def constant_planes(largest: float, shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """Every channel another constant, up to the largest."""
    given = problem(shape, torch.float32)
    values = torch.linspace(0.37, 1.0, shape[1]) * largest
    given["x"] = values[None, :, None, None].expand(shape).contiguous()
    return given


@pytest.mark.parametrize("largest", [0.0, 0.1, -3.0e7])
def test_constant_planes(isa: str, largest: float) -> None:
    given = constant_planes(largest, (2, 35, 7, 6))
    out, grad_x, grad_weight, _ = run(given)
    assert torch.equal(out, given["bias"].relu()[None, :, None, None].expand_as(out))
    assert not grad_weight.any()
    # The variance is 0, whatever the sums of such numbers lose.
    _, expected, *_ = run(in_float64(given), norm_relu_pool_reference)
    torch.testing.assert_close(grad_x.double(), expected, rtol=1e-4, atol=1e-4)


def test_rounding_gives_no_negative_variance(isa: str) -> None:
    # In rows as long as this, float32 loses so much that the difference of squares is below 0.
    given = constant_planes(3.0e7, (1, 64, 2, 5000))
    assert all(value.isfinite().all() for value in run(given))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_values_spread_as_in_torch(isa: str, dtype: Any, bad: float) -> None:
    for name, index in (
        ("x", (1, 3, 2, 4)),
        ("x", (0, 1, 4, 0)),  # in the row that pooling leaves out
        ("bias", (5,)),
        ("grad_out", (0, 4, 1, 1)),
        # Infinite, it is multiplied in another order by torch: inf for NaN.
        *([("weight", (2,))] if np.isnan(bad) else []),
    ):
        given = problem((2, 7, 5, 6), dtype)
        given[name][index] = bad
        expected = run(in_float64(given), norm_relu_pool_reference)
        for value, right in zip(run(given), expected, strict=True):
            assert torch.equal(value.isfinite(), right.isfinite())
            assert torch.equal(value.isnan(), right.isnan())
            finite = right.isfinite()
            torch.testing.assert_close(value[finite].double(), right[finite], rtol=0.01, atol=0.01)


def test_ties_are_rounded_to_even(isa: str) -> None:
    given = problem((1, 64, 2, 2), torch.bfloat16)
    given["weight"].zero_()
    given["bias"] = 1 + torch.arange(64) * 2.0**-8
    out = run(given)[0]
    assert torch.equal(out.flatten(), given["bias"].bfloat16())


def test_no_nan_becomes_a_number_by_rounding(isa: str) -> None:
    given = problem((1, 4, 2, 2), torch.bfloat16)
    # Rounded as a number, this pattern would carry into the sign and be -0.
    given["bias"][2:] = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)
    assert run(given)[0].isnan().flatten().tolist() == [False, False, True, True]


@pytest.mark.parametrize("dtype", DTYPES)
def test_layout_of_arguments_does_not_matter(dtype: Any) -> None:
    given = problem((3, 6, 4, 6), dtype)
    expected = run(given)
    assert expected[0].is_contiguous(memory_format=torch.channels_last)
    n, c, h, w = given["x"].shape
    wide = torch.zeros(n, c + 2, h, 2 * w, dtype=dtype)
    views = {
        "x": wide[:, 1:-1, :, ::2].copy_(given["x"]),
        "weight": given["weight"].repeat_interleave(2)[::2],
        "bias": given["bias"].repeat_interleave(3)[::3],
        "grad_out": given["grad_out"].to(memory_format=torch.channels_last),
    }
    leaves = [views[name].requires_grad_() for name in ("x", "weight", "bias")]
    out = norm_relu_pool(*leaves)
    found = (out.detach(), *torch.autograd.grad(out, leaves, views["grad_out"]))
    assert bits(found) == bits(expected)


@pytest.mark.parametrize("asked", list(itertools.product((True, False), repeat=3)))
def test_gradients_of_what_was_asked_for(asked: tuple[bool, bool, bool]) -> None:
    given = problem((2, 5, 6, 5), torch.float32)
    expected = run(given)
    leaves = [
        given[name].clone().requires_grad_(wanted)
        for name, wanted in zip(("x", "weight", "bias"), asked, strict=True)
    ]
    out = norm_relu_pool(*leaves)
    assert bits((out.detach(),)) == bits(expected[:1])
    assert out.requires_grad == any(asked)
    if any(asked):
        out.backward(given["grad_out"])
    for leaf, right, wanted in zip(leaves, expected[1:], asked, strict=True):
        assert (leaf.grad is not None) == wanted
        assert not wanted or torch.equal(leaf.grad, right)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Any) -> None:
    given = problem((2, 5, 6, 5), torch.float32)
    leaves = [given[name].requires_grad_() for name in ("x", "weight", "bias")]
    with mode():
        out = norm_relu_pool(*leaves)
    assert not out.requires_grad
    assert torch.equal(out, run(given)[0])


def test_under_autocast() -> None:
    given = problem((2, 8, 4, 4), torch.float32)
    conv = torch.nn.Conv2d(8, 8, 3, padding=1)
    weight = given["weight"].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        maps = conv(given["x"])
        out = norm_relu_pool(maps, weight, given["bias"])
    assert maps.dtype == out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert weight.grad.dtype == conv.weight.grad.dtype == torch.float32


def test_defaults_of_torch_do_not_matter() -> None:
    given = problem((2, 5, 4, 6), torch.bfloat16)
    expected = bits(run(given))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = run(given)
    finally:
        torch.set_default_dtype(before)
    assert bits(found) == expected


def test_parameters_in_bfloat16() -> None:
    given = {name: v.bfloat16() for name, v in problem((2, 8, 4, 4), torch.float32).items()}
    wide = {name: v if name == "x" else v.float() for name, v in given.items()}
    found, expected = run(given), run(wide)
    assert {value.dtype for value in found} == {torch.bfloat16}
    for value, right in zip(found, expected, strict=True):
        assert torch.equal(value, right.bfloat16())


def test_memory_for_the_backward_pass() -> None:
    saved: list[Any] = []

    def pack(tensor: Any) -> Any:
        saved.append(tensor)
        return tensor

    x = torch.randn(3, 4, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        norm_relu_pool(x, torch.ones(4), torch.zeros(4))
    elements = sorted(tensor.numel() for tensor in saved)
    assert elements == [4, 4, 3 * 4, 3 * 4, x.numel()]
    assert max(saved, key=torch.numel).data_ptr() == x.data_ptr()


def double_problem() -> list[Any]:
    given = in_float64(problem((2, 3, 5, 4), torch.float32))
    return [given[name].requires_grad_() for name in ("grad_out", "x", "weight", "bias")]


def test_written_gradients_are_those_of_autograd() -> None:
    grad_out, *leaves = double_problem()
    out = norm_relu_pool_reference(*leaves)
    expected = torch.autograd.grad(out, leaves, grad_out, create_graph=True)
    found = fused._differentiable_gradients(grad_out, *leaves, EPS)
    probes = [torch.randn(v.shape, dtype=torch.float64) for v in expected]
    seconds = [
        torch.autograd.grad(
            sum((v * p).sum() for v, p in zip(values, probes, strict=True)),
            [grad_out, *leaves],
            materialize_grads=True,
        )
        for values in (expected, found)
    ]
    for value, right in zip([*found, *seconds[1]], [*expected, *seconds[0]], strict=True):
        torch.testing.assert_close(value, right, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda *a: fused._differentiable_gradients(*a, EPS), (grad_out, *leaves)
    )


def test_derivatives_of_any_order_in_float64() -> None:
    _, *leaves = double_problem()
    assert torch.autograd.gradcheck(norm_relu_pool, leaves)
    assert torch.autograd.gradgradcheck(norm_relu_pool, leaves)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03)])
def test_gradients_of_gradients(dtype: Any, tolerance: float) -> None:
    given = problem((2, 6, 7, 4), dtype)
    results = []
    for values, function in (
        (given, norm_relu_pool),
        (in_float64(given), norm_relu_pool_reference),
    ):
        leaves = [values[name].clone().requires_grad_() for name in ("x", "weight", "bias")]
        first = torch.autograd.grad(
            function(*leaves), leaves, values["grad_out"], create_graph=True
        )
        second = torch.autograd.grad(
            sum((v.to(leaves[1].dtype) ** 3).sum() for v in first), leaves, materialize_grads=True
        )
        results.append([v.detach().double() for v in (*first, *second)])
    for value, right in zip(*results, strict=True):
        assert (value - right).norm() <= tolerance * right.norm()
    assert results[0][0].abs().sum() > 0


def test_first_order_is_the_kernel_and_second_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    backward = _core.norm_relu_pool_backward
    monkeypatch.setattr(
        _core,
        "norm_relu_pool_backward",
        lambda **arguments: calls.append("kernel") or backward(**arguments),
    )
    given = problem((1, 2, 4, 4), torch.float32)
    x = given["x"].requires_grad_()
    out = norm_relu_pool(x, given["weight"], given["bias"])
    (plain,) = torch.autograd.grad(out, x, given["grad_out"], retain_graph=True)
    assert calls == ["kernel"]
    (graph,) = torch.autograd.grad(out, x, given["grad_out"], create_graph=True)
    assert calls == ["kernel"]
    assert graph.requires_grad
    torch.testing.assert_close(plain, graph)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_go_through_torch(dtype: Any) -> None:
    given = {name: v.to(dtype) for name, v in problem((2, 4, 5, 4), torch.float32).items()}
    expected = run(given, norm_relu_pool_reference)
    for value, right in zip(run(given), expected, strict=True):
        assert torch.equal(value, right)


def test_other_devices_go_through_torch() -> None:
    x, weight, bias = (torch.ones(s, device="meta") for s in ((2, 4, 6, 6), 4, 4))
    assert norm_relu_pool(x, weight, bias).shape == (2, 4, 3, 3)


def test_no_images() -> None:
    given = problem((0, 4, 6, 6), torch.float32)
    out, grad_x, grad_weight, _ = run(given)
    assert out.shape == (0, 4, 3, 3)
    assert grad_x.shape == (0, 4, 6, 6)
    assert grad_weight.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [[1.0]]}, TypeError, "x is a list"),
        ({"x": torch.ones(4, 6, 6)}, ValueError, r"x has shape \(4, 6, 6\)"),
        ({"x": torch.ones(2, 4, 1, 6)}, ValueError, r"x has shape \(2, 4, 1, 6\).*sides of 2"),
        ({"weight": torch.ones(3)}, ValueError, r"weight has shape \(3,\); it must be \(4,\)"),
        ({"bias": torch.ones(4, 1)}, ValueError, r"bias has shape \(4, 1\)"),
        ({"bias": None}, TypeError, "bias is a NoneType"),
        ({"eps": -1.0}, ValueError, "eps=-1"),
        ({"eps": "1"}, TypeError, "eps='1'"),
    ],
)
def test_arguments_are_checked(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"x": torch.ones(2, 4, 6, 6), "weight": torch.ones(4), "bias": torch.ones(4)}
    with pytest.raises(error, match=message):
        norm_relu_pool(**{**arguments, **change})


def core_arguments() -> dict[str, Any]:
    zeros = np.zeros
    return {
        "x": zeros((2, 4, 6, 3), np.float32),
        "weight": zeros(3, np.float32),
        "bias": zeros(3, np.float32),
        "eps": EPS,
        "out": zeros((2, 2, 3, 3), np.float32),
        "mean": zeros((2, 3), np.float32),
        "rstd": zeros((2, 3), np.float32),
        "n_threads": 1,
    }


def read_only() -> Any:
    out = core_arguments()["out"]
    out.flags.writeable = False
    return out


@pytest.mark.sanitize
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", np.zeros((2, 4, 1, 3), np.float32)),
        ("x", np.zeros((2, 4, 6, 3))),
        ("x", np.zeros((2, 4, 6, 3), np.int32)),
        ("x", np.zeros((2, 4, 6, 3), ">f4")),
        ("x", np.zeros((2, 4, 6, 6), np.float32)[..., ::2]),
        ("x", np.zeros((2, 4, 6, 3), np.uint16)),
        ("x", np.zeros(4, np.float32)),
        ("weight", np.zeros(4, np.float32)),
        ("bias", np.zeros(3)),
        ("out", np.zeros((2, 2, 2, 3), np.float32)),
        ("out", read_only()),
        ("mean", np.zeros((3, 3), np.float32)),
        ("rstd", np.zeros((2, 3), np.uint16)),
    ],
)
def test_memory_is_safe_from_wrong_arrays(name: str, value: Any) -> None:
    _core.norm_relu_pool_forward(**core_arguments())
    with pytest.raises(ValueError, match=r"another dtype, shape or layout|sides of 2 or more"):
        _core.norm_relu_pool_forward(**{**core_arguments(), name: value})


@pytest.mark.sanitize
@pytest.mark.parametrize("name", ["grad_out", "grad_x", "grad_weight", "grad_bias", "mean"])
def test_memory_is_safe_from_wrong_gradients(name: str) -> None:
    zeros = np.zeros
    given = {k: v for k, v in core_arguments().items() if k not in ("eps", "out")}
    arguments = {
        **given,
        "grad_out": zeros((2, 2, 3, 3), np.float32),
        "grad_x": zeros((2, 4, 6, 3), np.float32),
        "grad_weight": zeros(3, np.float32),
        "grad_bias": zeros(3, np.float32),
    }
    _core.norm_relu_pool_backward(**arguments)
    with pytest.raises(ValueError, match=f"{name} has another dtype, shape or layout"):
        _core.norm_relu_pool_backward(**{**arguments, name: zeros((2, 2), np.float32)})
