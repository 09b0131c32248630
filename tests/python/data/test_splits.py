# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from ddkern.data import stratified_split
from ddkern.data.splits import _hash


def test_hash_is_splitmix64() -> None:
    # The first outputs of the reference generator for these two states.
    assert int(_hash(0, 1)[0]) == 0xE220A8397B1DCDAF
    assert int(_hash(1234567, 1)[0]) == 6457827717110365317


def test_every_row_once_with_the_share_of_every_class() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 10, 3, 1])
    train, test = stratified_split(labels, 0.25, 7)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(114))
    # floor(m / 4 + 1/2), and a class of one image stays where it is trained on.
    np.testing.assert_array_equal(np.bincount(labels[test], minlength=4), [25, 3, 1, 0])
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()


def test_a_class_never_loses_all_its_images() -> None:
    train, test = stratified_split([0, 1, 1, 2, 2, 2], 0.99, 0)
    assert sorted(np.array([0, 1, 1, 2, 2, 2])[train]) == [0, 1, 2]
    assert len(test) == 3


def test_the_rule_never_changes() -> None:
    _, test = stratified_split(np.arange(1000) % 10, 0.2, 3)
    digest = hashlib.sha256(test.astype("<i8").tobytes()).hexdigest()
    assert digest.startswith("1331dbcaf5eee69a")


def test_seeds_differ() -> None:
    labels = np.zeros(100, int)
    first, second = (stratified_split(labels, 0.5, seed)[1] for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"test_fraction=.*; it must lie between 0 and 1"):
        stratified_split([0, 1], fraction, 0)


@pytest.mark.parametrize(
    ("labels", "seed", "error", "message"),
    [
        ([0.5], 0, TypeError, "labels has dtype float64"),
        ([[0]], 0, TypeError, r"shape \(1, 1\)"),
        ([0], -1, ValueError, "random_state=-1"),
        ([0], 1.5, TypeError, "random_state=1.5"),
    ],
)
def test_bad_arguments(labels: Any, seed: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        stratified_split(labels, 0.5, seed)
