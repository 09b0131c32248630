# SPDX-License-Identifier: Apache-2.0
"""The CIFAR-10 loader."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import cifar10


def test_skips_with_the_reason_when_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cifar10.VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="DDKERN_CIFAR10 is not set"):
        cifar10.train_labels()


def test_a_wrong_folder_is_an_error_not_a_skip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("PIL")
    monkeypatch.setenv(cifar10.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError):
        cifar10.train_labels()


def test_shapes_and_contents() -> None:
    labels = cifar10.train_labels()
    np.testing.assert_array_equal(np.bincount(labels), [5000] * 10)
    rows = cifar10.rows_of_classes(20)
    np.testing.assert_array_equal(np.bincount(labels[rows]), [20] * 10)
    images = cifar10.train_images(rows)
    assert images.shape == (200, 32, 32, 3)
    assert images.dtype == np.uint8
    assert 110 < images.mean() < 130
    pixels = cifar10.class_pixels(3, 5)
    assert pixels.shape == (5, 3072)
    np.testing.assert_array_equal(pixels, images[labels[rows] == 3][:5].reshape(5, -1))
