# SPDX-License-Identifier: Apache-2.0
"""Checks of images, latents, labels and ids, and their messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddkern.latents.arguments import (
    as_ids,
    as_image_shape,
    as_images,
    as_labels,
    as_latents,
    batches,
    refuse_decoding,
)

SHAPE = (3, 2, 4)
IMAGES = np.zeros((5, *SHAPE), np.uint8)
LATENTS = np.zeros((5, 4, 2), np.float32)


def test_good_arguments_pass() -> None:
    assert as_images(IMAGES, SHAPE) is IMAGES
    assert as_images(IMAGES[:0], SHAPE).shape == (0, *SHAPE)
    assert as_latents(LATENTS, (4, 2)) is LATENTS
    assert as_latents(LATENTS[:0], (4, 2)).shape == (0, 4, 2)
    backwards = as_latents(LATENTS[::-1], (4, 2))
    assert backwards.strides == LATENTS.strides
    labels = as_labels(np.array([0, 2], np.uint8), 2, 3)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 2]
    assert as_labels([1 << 40], 1).tolist() == [1 << 40]
    assert as_ids(None, 3).tolist() == [0, 1, 2]
    assert as_ids([7, 7, 0], 3).tolist() == [7, 7, 0]
    assert as_image_shape([np.int64(1), 2, 3]) == (1, 2, 3)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([1], TypeError, "images is a list; it must be an array of uint8 and shape"),
        (
            IMAGES.astype(np.float32),
            TypeError,
            r"images has dtype float32; .* shape \(n, 3, 2, 4\)",
        ),
        (IMAGES[0], ValueError, r"images has shape \(3, 2, 4\); it must be"),
        (IMAGES[:, :1], ValueError, r"images has shape \(5, 1, 2, 4\); it must be"),
    ],
)
def test_bad_images(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_images(value, SHAPE)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("x", TypeError, "latents is a str; it must be an array of float32 and shape"),
        (LATENTS.astype(np.float64), TypeError, r"latents has dtype float64; .* \(n, 4, 2\)"),
        (LATENTS[:, :3], ValueError, r"latents has shape \(5, 3, 2\); it must be"),
        (LATENTS[None], ValueError, r"latents has shape \(1, 5, 4, 2\); it must be"),
    ],
)
def test_bad_latents(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_latents(value, (4, 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_latents_that_are_not_finite(value: float) -> None:
    latents = LATENTS.copy()
    latents[3, 1, 1] = latents[4, 0, 0] = value
    with pytest.raises(ValueError, match="latents holds NaN or infinity in row 3"):
        as_latents(latents, (4, 2))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([0.5, 1], TypeError, "labels has dtype float64; it must hold one integer of at least 0 "),
        ([True, False], TypeError, "labels has dtype bool"),
        ([0], ValueError, r"labels has shape \(1,\); .* less than 3 for each of the 2 latents"),
        ([[0, 1]], ValueError, r"labels has shape \(1, 2\)"),
        ([0, 3], ValueError, r"labels\[1\]=3; it must hold one integer of at least 0 and less "),
        ([-1, 0], ValueError, r"labels\[0\]=-1; it must hold"),
    ],
)
def test_bad_labels(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_labels(value, 2, 3)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (["a", "b"], TypeError, "ids has dtype <U1; it must hold 2 integers of at least 0"),
        ([1, 2, 3], ValueError, r"ids has shape \(3,\); it must hold 2 integers"),
        ([1, -2], ValueError, r"ids\[1\]=-2; it must hold 2 integers of at least 0"),
        (np.array([0, 2**63], np.uint64), ValueError, r"ids\[1\]=9223372036854775808; it must"),
    ],
)
def test_bad_ids(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_ids(value, 2)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (32, TypeError, r"image_shape=32; it must be \(channels, height, width\) with 1 or 3"),
        ("abc", TypeError, "image_shape='abc'; it must be"),
        ((32, 32), ValueError, r"image_shape=\(32, 32\); it must be"),
        ((2, 32, 32), ValueError, r"image_shape=\(2, 32, 32\); it must be"),
        ((3, 0, 32), ValueError, r"image_shape\[1\]=0; it must be an integer of at least 1"),
        ((3, 1.5, 32), TypeError, r"image_shape\[1\]=1.5 is a float"),
    ],
)
def test_bad_image_shapes(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_image_shape(value)


@pytest.mark.parametrize("name", ["strength", "steps", "guidance"])
def test_decoding_without_a_diffusion_model(name: str) -> None:
    nothing = dict.fromkeys(("strength", "steps", "guidance"))
    assert refuse_decoding("X", **nothing) == {}
    message = f"{name}=0; it must be None for X, which has no diffusion model"
    with pytest.raises(ValueError, match=message):
        refuse_decoding("X", **nothing | {name: 0})


@pytest.mark.parametrize(("n", "size", "cuts"), [(5, 2, [0, 2, 4]), (4, 2, [0, 2]), (0, 3, [])])
def test_batches_cover_all_rows(n: int, size: int, cuts: list[int]) -> None:
    found = list(batches(n, size))
    assert [rows.start for rows in found] == cuts
    assert [row for rows in found for row in range(rows.start, rows.stop)] == list(range(n))
