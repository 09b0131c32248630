# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddkern.distill import KCenter, distill
from helpers.coresets import dataset_of, inputs_of, make_dataset, rows_by_class


def _oracle(x: NDArray[np.float64], count: int) -> list[int]:
    """From the image nearest to the mean, always the one farthest from all chosen ones."""
    chosen = [int(np.argmin(np.linalg.norm(x - x.mean(axis=0), axis=1)))]
    while len(chosen) < count:
        reach = {
            row: min(np.linalg.norm(x[row] - x[centre]) for centre in chosen)
            for row in range(len(x))
            if row not in chosen
        }
        chosen.append(max(reach, key=reach.__getitem__))
    return chosen


@pytest.mark.parametrize("ipc", [1, 2, 5])
def test_greedy_choice_by_brute_force(ipc: int) -> None:
    dataset = make_dataset((7, 5, 30), seed=ipc)
    chosen = rows_by_class(distill(dataset, KCenter(ipc=ipc), random_state=0), dataset)
    assert chosen == [_oracle(inputs_of(dataset, label), ipc) for label in range(3)]


@given(seed=st.integers(0, 10**6), n=st.integers(2, 12), data=st.data())
def test_any_class_by_brute_force(seed: int, n: int, data: st.DataObject) -> None:
    ipc = data.draw(st.integers(1, n))
    dataset = make_dataset((n,), (1, 4, 3), seed)
    chosen = rows_by_class(distill(dataset, KCenter(ipc=ipc), random_state=0), dataset)[0]
    # Twelve random bytes an image: no two distances are equal.
    assert chosen == _oracle(inputs_of(dataset, 0), ipc)


@pytest.mark.parametrize("ipc", [2, 3, 4])
def test_radius_is_at_most_twice_the_best(ipc: int) -> None:
    dataset = make_dataset((10,), (1, 1, 2), seed=ipc)
    x = inputs_of(dataset, 0)
    gaps = np.linalg.norm(x[:, None] - x[None], axis=2)
    best = min(
        gaps[:, list(centres)].min(axis=1).max()
        for centres in itertools.combinations(range(10), ipc)
    )
    chosen = rows_by_class(distill(dataset, KCenter(ipc=ipc), random_state=0), dataset)[0]
    assert gaps[:, chosen].min(axis=1).max() <= 2 * best


def test_equal_images_are_each_taken_once() -> None:
    images = np.array([0, 9, 9, 9, 0, 20], np.uint8).reshape(6, 1, 1, 1)
    dataset = dataset_of(images, np.zeros(6, np.int64), 1)
    # Mean 7.8: a 9 first, then 20, then a 0; what is left lies at distance 0, lowest row first.
    chosen = rows_by_class(distill(dataset, KCenter(ipc=6), random_state=0), dataset)[0]
    assert chosen == [1, 5, 0, 2, 3, 4]
