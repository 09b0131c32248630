# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddkern.distill import Herding, distill
from helpers.coresets import dataset_of, inputs_of, make_dataset, rows_by_class


def _oracle(x: NDArray[np.float64], count: int) -> list[int]:
    """Try every image at every step, by the mean that it leads to."""
    mean = x.mean(axis=0)
    chosen: list[int] = []
    for _ in range(count):
        gap = {
            row: np.linalg.norm(mean - x[[*chosen, row]].mean(axis=0))
            for row in range(len(x))
            if row not in chosen
        }
        chosen.append(min(gap, key=gap.__getitem__))
    return chosen


@pytest.mark.parametrize("ipc", [1, 2, 5])
def test_greedy_choice_by_brute_force(ipc: int) -> None:
    dataset = make_dataset((7, 5, 30), seed=ipc)
    chosen = rows_by_class(distill(dataset, Herding(ipc=ipc), random_state=0), dataset)
    assert chosen == [_oracle(inputs_of(dataset, label), ipc) for label in range(3)]


@given(seed=st.integers(0, 10**6), n=st.integers(2, 12), data=st.data())
def test_any_class_by_brute_force(seed: int, n: int, data: st.DataObject) -> None:
    ipc = data.draw(st.integers(1, n))
    dataset = make_dataset((n,), (1, 4, 3), seed)
    chosen = rows_by_class(distill(dataset, Herding(ipc=ipc), random_state=0), dataset)[0]
    x = inputs_of(dataset, 0)
    for t, row in enumerate(chosen, 1):
        left = [other for other in range(n) if other not in chosen[: t - 1]]
        gaps = {
            other: np.linalg.norm(x.mean(axis=0) - x[[*chosen[: t - 1], other]].mean(axis=0))
            for other in left
        }
        # The last two images of a class can tie exactly, which rounding then decides.
        assert gaps[row] <= min(gaps.values()) + 1e-12


def test_lowest_row_of_equal_images() -> None:
    images = np.array([0, 255, 100, 100, 255, 0], np.uint8).reshape(6, 1, 1, 1)
    dataset = dataset_of(images, np.zeros(6, np.int64), 1)
    # Mean 118.3: a 100 first; the other one then keeps the mean at 100, nearer than 177.5 and 50.
    chosen = rows_by_class(distill(dataset, Herding(ipc=2), random_state=0), dataset)[0]
    assert chosen == [2, 3]


def test_balance_of_the_means() -> None:
    images = np.array([0, 10, 100, 150, 240], np.uint8).reshape(5, 1, 1, 1)
    dataset = dataset_of(images, np.zeros(5, np.int64), 1)
    # Mean 100. After 100 itself: means 50, 55, 125, 170, so 150; then 83.3, 86.7, 163.3.
    chosen = rows_by_class(distill(dataset, Herding(ipc=3), random_state=0), dataset)[0]
    assert chosen == [2, 3, 1]
