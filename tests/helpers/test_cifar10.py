# SPDX-License-Identifier: Apache-2.0
"""The CIFAR-10 loader."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import cifar10


def test_skips_with_the_reason_when_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cifar10.VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="DDKERN_CIFAR10 is not set"):
        cifar10.train_images()


def test_a_wrong_folder_is_an_error_not_a_skip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("PIL")
    monkeypatch.setenv(cifar10.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError):
        cifar10.train_images()


def test_shapes_and_contents() -> None:
    images, labels = cifar10.train_images()
    assert images.shape == (50000, 32, 32, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(labels), [5000] * 10)
    assert 110 < images.mean() < 130
    pixels = cifar10.class_pixels(3)
    assert pixels.shape == (5000, 3072)
    first = int(np.flatnonzero(labels == 3)[0])
    np.testing.assert_array_equal(pixels[0], images[first].ravel())
