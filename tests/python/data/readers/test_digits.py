# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.datasets import load_digits

from ddkern.data import open_dataset


def test_all_digits() -> None:
    digits = load_digits()
    data = open_dataset("digits", split="all")
    np.testing.assert_array_equal(data.labels, digits.target)
    back = np.rint(data.images()[:, 0] / (255 / 16))
    np.testing.assert_array_equal(back, digits.images)
    assert (data.images().min(), data.images().max()) == (0, 255)


def test_parts_are_disjoint_and_stay_the_same() -> None:
    train, test = open_dataset(), open_dataset(split="test")
    assert (train.split, test.split) == ("train", "test")
    assert len(train) + len(test) == 1797
    assert not set(train.rows.tolist()) & set(test.rows.tolist())
    assert test.class_counts.tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert test.rows[:5].tolist() == [2, 4, 31, 32, 33]


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match="no split 'validation'; its splits are 'train', 'test'"):
        open_dataset("digits", split="validation")
