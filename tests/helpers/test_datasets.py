# SPDX-License-Identifier: Apache-2.0
"""The writers of small data sets."""

from __future__ import annotations

import io

import numpy as np
import pytest

from helpers.datasets import CLASS_COUNTS, idx_bytes, make_images, png


def test_images_have_all_classes_in_mixed_order() -> None:
    images, labels = make_images()
    assert images.shape == (12, 3, 6, 5)
    np.testing.assert_array_equal(np.bincount(labels), CLASS_COUNTS)
    assert (np.diff(labels) < 0).any()
    assert set(labels[:3]) == set(labels[-3:]) == {0, 1, 2}


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(channels: int) -> None:
    pil = pytest.importorskip("PIL.Image")
    image = make_images(shape=(channels, 6, 5))[0][0]
    with pil.open(io.BytesIO(png(image))) as picture:
        decoded = np.asarray(picture).reshape(6, 5, channels)
    np.testing.assert_array_equal(decoded.transpose(2, 0, 1), image)


def test_idx_header() -> None:
    content = idx_bytes(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert content == bytes.fromhex("00000802 00000002 00000003 000102030405")
