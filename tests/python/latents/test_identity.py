# SPDX-License-Identifier: Apache-2.0
"""Pixels there and back."""

from __future__ import annotations

import numpy as np
import pytest

from ddkern.latents import IdentityCodec
from ddkern.latents.identity import to_pixels, to_values

CODEC = IdentityCodec((3, 4, 64))
EVERY_PIXEL = np.arange(256, dtype=np.uint8)


def test_round_trip_is_exact_for_every_pixel() -> None:
    images = np.stack([EVERY_PIXEL, EVERY_PIXEL[::-1], np.roll(EVERY_PIXEL, 9)]).reshape(
        1, 3, 4, 64
    )
    latents = CODEC.encode(images)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, images / 127.5 - 1, atol=1e-7)
    assert latents.min() == -1
    assert latents.max() == 1
    decoded = CODEC.decode(latents, np.array([4]))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, images)


def test_means_round_to_the_nearest_pixel() -> None:
    images = np.array([10, 13], np.uint8).reshape(2, 1, 1, 1)
    codec = IdentityCodec([1, 1, 1])
    mean = codec.encode(images).mean(axis=0, keepdims=True)
    for weight, expected in ((0.55, 12), (0.45, 11), (0.9, 13)):
        latents = codec.encode(images)
        mixed = weight * latents[1:] + (1 - weight) * latents[:1]
        assert codec.decode(mixed.astype(np.float32), [0]).item() == expected
    assert codec.decode(mean, [0]).item() in (11, 12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_beyond_the_range_are_cut_off(dtype: type) -> None:
    values = np.array([-1e30, -1.5, -1, -0.999, 0.999, 1, 1.5, 1e30], dtype)
    assert to_pixels(values).tolist() == [0, 0, 0, 0, 255, 255, 255, 255]


def test_values_are_float32() -> None:
    assert to_values(EVERY_PIXEL).dtype == np.float32


def test_shapes_and_description() -> None:
    assert CODEC.image_shape == CODEC.latent_shape == (3, 4, 64)
    assert CODEC.batch_size == (1 << 26) // (4 * 768)
    assert IdentityCodec((3, 10**4, 10**4)).batch_size == 1
    assert CODEC.describe() == {"name": "identity", "image_shape": [3, 4, 64]}
    assert CODEC.decoding() == {}
    CODEC.check_classes(("a", "b"))
    assert IdentityCodec((3, 4, 64)) == CODEC


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"image_shape=\(3, 4\)"):
        IdentityCodec((3, 4))
    images, latents = np.zeros((2, 3, 4, 64), np.uint8), np.zeros((2, 3, 4, 64), np.float32)
    with pytest.raises(TypeError, match="images has dtype float32"):
        CODEC.encode(latents)
    with pytest.raises(ValueError, match="ids has shape"):
        CODEC.encode(images, ids=[1])
    with pytest.raises(ValueError, match="seed=-1"):
        CODEC.encode(images, seed=-1)
    with pytest.raises(TypeError, match="latents has dtype uint8"):
        CODEC.decode(images, [0, 0])
    with pytest.raises(ValueError, match="labels has shape"):
        CODEC.decode(latents, [0])
    with pytest.raises(ValueError, match="ids has shape"):
        CODEC.decode(latents, [0, 0], ids=[1])
    with pytest.raises(ValueError, match="seed=-1"):
        CODEC.decode(latents, [0, 0], seed=-1)
    with pytest.raises(
        ValueError, match="steps=5; it must be None for IdentityCodec, which has no"
    ):
        CODEC.decode(latents, [0, 0], steps=5)
    with pytest.raises(ValueError, match="strength=0.0; it must be None"):
        CODEC.decoding(0.0)
