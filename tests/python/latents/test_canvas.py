# SPDX-License-Identifier: Apache-2.0
"""Images on a model's canvas and back: exact where nothing is resized, averaging where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ddkern.latents.canvas import Canvas  # noqa: E402

RNG = np.random.default_rng(0)


def _images(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


def _smooth(n: int, channels: int, height: int, width: int) -> np.ndarray:
    """Slow waves, which resizing keeps."""
    y, x = np.mgrid[:height, :width]
    y, x = (y + 0.5) / height, (x + 0.5) / width
    wave = [np.sin(3 * x + i) * np.cos(3 * y + c) for i in range(n) for c in range(channels)]
    return (
        np.rint(127.5 + 100 * np.stack(wave)).astype(np.uint8).reshape(n, channels, height, width)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_same_size_and_channels_is_exact(channels: int) -> None:
    canvas = Canvas((channels, 5, 7), channels, (5, 7))
    images = _images(4, channels, 5, 7)
    values = canvas.paint(images)
    assert values.dtype == torch.float32
    assert values.shape == (4, *canvas.shape)
    np.testing.assert_allclose(values.numpy(), images / 127.5 - 1, atol=1e-7)
    found = canvas.read(values)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, images)


def test_grey_is_replicated_and_averaged() -> None:
    canvas = Canvas((1, 4, 4), 3, (4, 4))
    images = _images(3, 1, 4, 4)
    values = canvas.paint(images)
    assert values.shape == (3, 3, 4, 4)
    for channel in range(3):
        assert torch.equal(values[:, channel], values[:, 0])
    np.testing.assert_array_equal(canvas.read(values), images)
    shifted = values + torch.tensor([-0.3, 0.1, 0.2]).reshape(1, 3, 1, 1)
    inside = np.abs(values.numpy()).max(axis=1, keepdims=True) < 0.7
    np.testing.assert_array_equal(canvas.read(shifted)[inside], images[inside])


@pytest.mark.parametrize("size", [(12, 12), (16, 24), (7, 9), (12, 30)])
@pytest.mark.parametrize(("channels", "of_model"), [(3, 3), (1, 3), (1, 1)])
def test_smooth_images_survive_another_size(
    size: tuple[int, int], channels: int, of_model: int
) -> None:
    images = _smooth(3, channels, 12, 12)
    canvas = Canvas((channels, 12, 12), of_model, size)
    values = canvas.paint(images)
    assert values.shape == (3, of_model, *size)
    expected = _smooth(3, channels, *size) / 127.5 - 1
    # Bicubic interpolation bends at the borders, where it has no neighbours.
    np.testing.assert_allclose(
        values.numpy(), np.repeat(expected, of_model // channels, 1), atol=0.1
    )
    assert np.abs(canvas.read(values).astype(int) - images).mean() < 4


def test_smaller_images_are_averages() -> None:
    images = np.zeros((1, 1, 16, 16), np.uint8)
    images[..., 1::4] = 255
    found = Canvas((1, 16, 16), 1, (4, 4)).paint(images)
    # A quarter of the pixels is white. Without antialiasing it would be more than a half, for these
    # are the ones that lie next to the centres of the large pixels.
    assert (found[..., 1:-1] + 0.5).abs().max() < 0.15
    values = torch.from_numpy(images.astype(np.float32)) / 127.5 - 1
    back = Canvas((1, 4, 4), 1, (16, 16)).read(values)
    assert np.abs(back[..., 1:-1].astype(int) - 64).max() < 20


def test_values_stay_on_the_canvas() -> None:
    images = np.zeros((1, 3, 6, 6), np.uint8)
    images[..., 2:4, 2:4] = 255
    values = Canvas((3, 6, 6), 3, (24, 24)).paint(images)
    # Bicubic interpolation alone overshoots beside an edge.
    assert values.min() == -1
    assert values.max() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_beyond_the_range_and_other_types(dtype: torch.dtype) -> None:
    values = torch.tensor([-9.0, -1.001, -1, 0.2, 1, 1.001, 9], dtype=dtype).reshape(1, 1, 1, 7)
    found = Canvas((1, 1, 7), 1, (1, 7)).read(values).ravel().tolist()
    assert found == [0, 0, 0, 153, 255, 255, 255]


def test_nothing_in_nothing_out() -> None:
    canvas = Canvas((1, 4, 4), 3, (8, 8))
    values = canvas.paint(_images(0, 1, 4, 4))
    assert values.shape == (0, 3, 8, 8)
    assert canvas.read(values).shape == (0, 1, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ((3, 8, 8), 1, (8, 8)),
            r"image_shape=\(3, 8, 8\), but the model takes images of one chan",
        ),
        (((3, 8, 8), 2, (8, 8)), "channels=2; a model must take images of 1 or 3"),
        (((2, 8, 8), 3, (8, 8)), r"image_shape=\(2, 8, 8\); it must be"),
        (((3, 8, 8), 3, (8, 0)), r"size\[1\]=0; it must be an integer of at least 1"),
    ],
)
def test_bad_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Canvas(*arguments)
