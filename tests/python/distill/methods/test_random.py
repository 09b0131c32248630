# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from ddkern.data import ImageDataset, Normalization
from ddkern.distill import Random, distill
from helpers.coresets import make_dataset, rows_by_class


def _chosen(dataset: ImageDataset, ipc: int, seed: int) -> list[list[int]]:
    return rows_by_class(distill(dataset, Random(ipc=ipc), random_state=seed), dataset)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_order_of_philox_keys(seed: int) -> None:
    dataset = make_dataset()
    for label, chosen in enumerate(_chosen(dataset, 2, seed)):
        bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(label,)))
        keys = {row: int(bits.random_raw()) for row in range(dataset.class_counts[label])}
        assert chosen == sorted(keys, key=keys.__getitem__)[:2]


def test_draws_are_pinned() -> None:
    # Written down once: the same on every machine, with every version of numpy.
    assert _chosen(make_dataset((9, 9)), 4, 7) == [
        [0, 8, 5, 2],
        [8, 2, 0, 3],
    ]


def test_other_classes_do_not_matter() -> None:
    one, other = make_dataset((9, 5, 20)), make_dataset((9, 30, 20), seed=1)
    a, b = _chosen(one, 5, 3), _chosen(other, 5, 3)
    assert (a[0], a[2]) == (b[0], b[2])
    assert a[1] != b[1]


def test_seeds_and_labels_draw_differently() -> None:
    dataset = make_dataset((50, 50))
    draws = [tuple(rows) for seed in range(10) for rows in _chosen(dataset, 5, seed)]
    assert len(set(draws)) == 20


def test_every_image_is_drawn_equally_often() -> None:
    dataset = make_dataset((6,))
    norm, counts = Normalization.identity(1), np.zeros(6)
    for seed in range(600):
        made = Random(ipc=2).distill(dataset, normalization=norm, random_state=seed)
        counts[made.provenance.options["rows"]] += 1
    # Each count is binomial, 600 draws of probability 1/3: five deviations are 58.
    assert np.abs(counts - 200).max() < 58
