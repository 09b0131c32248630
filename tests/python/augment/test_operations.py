# SPDX-License-Identifier: Apache-2.0
"""Every operation against loops over pixels, and its derivatives against differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from ddkern.augment import operations
from reference import augment as twin

N = 5
Operation = Callable[[Any, Any], Any]

# For each operation, parameters of five images: neutral ones, the ends of the usual ranges, more.
PARAMETERS: dict[str, Any] = {
    "shift_brightness": np.array([0.0, -0.5, 0.5, 0.123, 7.0]),
    "scale_saturation": np.array([1.0, 0.0, 2.0, 0.7, 1.3]),
    "scale_contrast": np.array([1.0, 0.5, 1.5, 0.0, 3.0]),
    "crop": np.array([[0, 0], [-2, 3], [3, -1], [0, 9], [-20, 0]]),
    "cutout": np.array([[0, 0, 0, 0], [1, 4, 2, 6], [0, 6, 0, 9], [5, 6, 8, 9], [2, 2, 0, 9]]),
    "flip": np.array([False, True, True, False, True]),
    "scale": np.array([[1.0, 1.0], [1.2, 0.8], [1 / 1.2, 1.2], [2.0, 0.5], [1.01, 0.99]]),
    "rotate": np.array([0.0, 0.2618, -0.2618, np.pi / 2, 3.0]),
}
NAMES = list(PARAMETERS)


def images(size: tuple[int, int] = (6, 9), channels: int = 3) -> Any:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(N, channels, *size, generator=generator, dtype=torch.float64)


def operation(name: str) -> Operation:
    found: Operation = getattr(operations, name)
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(6, 9), (7, 7), (1, 4)])
def test_against_loops_over_pixels(name: str, size: tuple[int, int]) -> None:
    x = images(size)
    parameters = PARAMETERS[name]
    if name == "cutout":
        parameters = np.minimum(parameters, np.array([size[0], size[0], size[1], size[1]]))
    expected = getattr(twin, name)(x.numpy(), parameters)
    # A handful of roundings of numbers of magnitude 10.
    np.testing.assert_allclose(operation(name)(x, parameters).numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_one_row_of_parameters_serves_all_images(name: str) -> None:
    x = images()
    for row in range(N):
        one = PARAMETERS[name][row : row + 1]
        each = np.repeat(one, N, axis=0)
        assert torch.equal(operation(name)(x, one), operation(name)(x, each))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, N])
def test_derivatives_of_first_and_second_order(name: str, rows: int) -> None:
    x = images((3, 4), 2)[: max(rows, 2)].requires_grad_()
    parameters = PARAMETERS[name][-rows:]
    if name == "cutout":
        parameters = np.minimum(parameters, np.array([3, 3, 4, 4]))
    assert torch.autograd.gradcheck(lambda im: operation(name)(im, parameters), x)
    # All are linear in the images; the square gives them second derivatives.
    assert torch.autograd.gradgradcheck(lambda im: operation(name)(im, parameters) ** 2, x)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_dtype_and_memory_of_the_images_are_kept(name: str, dtype: str) -> None:
    x = images().to(getattr(torch, dtype))
    before = x.clone()
    out = operation(name)(x, PARAMETERS[name])
    assert out.dtype == x.dtype
    assert out.shape == x.shape
    assert torch.equal(x, before)
    exact = operation(name)(x.double(), PARAMETERS[name])
    # Sums of up to 162 terms below 16, rounded to the format a few times.
    bound = 64 * torch.finfo(x.dtype).eps * exact.abs().max()
    assert (out.double() - exact).abs().max() <= bound


@pytest.mark.parametrize("name", ["scale", "rotate"])
def test_sampling_is_that_of_torch(name: str) -> None:
    x = images()
    parameters = torch.as_tensor(PARAMETERS[name])
    zero = torch.zeros(N, dtype=torch.float64)
    if name == "scale":
        rows = [parameters[:, 0], zero, zero, zero, parameters[:, 1], zero]
    else:
        cosine, sine = parameters.cos(), parameters.sin()
        rows = [cosine, -sine, zero, sine, cosine, zero]
    theta = torch.stack(rows, dim=1).reshape(N, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, x.shape, align_corners=False)
    expected = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    torch.testing.assert_close(operation(name)(x, parameters), expected, rtol=0, atol=1e-13)


def test_quarter_turn_is_anticlockwise() -> None:
    x = images((5, 5))
    turned = operations.rotate(x, [np.pi / 2])
    torch.testing.assert_close(turned, torch.rot90(x, 1, (2, 3)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_under_vmap(name: str) -> None:
    stacked = torch.stack([images(), -2 * images()])
    mapped = torch.func.vmap(lambda im: operation(name)(im, PARAMETERS[name]))(stacked)
    for row in range(2):
        alone = operation(name)(stacked[row], PARAMETERS[name])
        torch.testing.assert_close(mapped[row], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_parameters_must_fit(name: str) -> None:
    for rows in (0, 2, N + 1):
        parameters = np.resize(PARAMETERS[name], (rows, *PARAMETERS[name].shape[1:]))
        with pytest.raises(ValueError, match=r"has shape \(.*a row for each image"):
            operation(name)(images(), parameters)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.zeros((2, 3, 4, 4)), TypeError, "images is a ndarray"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), TypeError, "images has dtype torch.uint8"),
        (torch.zeros(3, 4, 4), ValueError, r"images has shape \(3, 4, 4\)"),
        (torch.zeros(0, 3, 4, 4), ValueError, r"images has shape \(0, 3, 4, 4\)"),
    ],
)
def test_images_are_checked(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        operations.check_images(value)
