# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ddkern
from ddkern.data import ImageDataset, Normalization
from ddkern.distill import KMeansNearest, distill
from ddkern.distill.selection import _nearest_distinct
from ddkern.errors import EmptyCellWarning
from helpers.coresets import assert_coreset, dataset_of, inputs_of, make_dataset, rows_by_class


def _oracle(
    dataset: ImageDataset, ipc: int, seed: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Quantize all classes in one call; heaviest cells first, then the nearest image left."""
    norm = Normalization.fit(dataset)
    x = norm.apply(dataset.images()).reshape(len(dataset), -1)
    q = ddkern.quantize(x, ipc, groups=dataset.labels, random_state=seed)
    rows, weights = [], []
    for label in range(dataset.n_classes):
        members = inputs_of(dataset, label)
        centroids = q.centroids[q.groups == label].astype(np.float64)
        mass = [
            float(np.mean(q.assignment[dataset.labels == label] == j))
            for j in np.flatnonzero(q.groups == label)
        ]
        chosen: list[int] = []
        for cell in sorted(range(ipc), key=lambda j: (-mass[j], j)):
            gap = ((members - centroids[cell]) ** 2).sum(axis=1)
            gap[chosen] = np.inf
            chosen.append(int(np.argmin(gap)))
        rows.append(chosen)
        weights.append([mass * ipc for mass in sorted(mass, reverse=True)])
    return rows, weights


@given(seed=st.integers(0, 10**6), ipc=st.integers(1, 5))
def test_choice_and_weights_from_one_call_over_all_classes(seed: int, ipc: int) -> None:
    dataset = make_dataset((6, 5, 25), (1, 2, 4), seed)
    made = distill(dataset, KMeansNearest(ipc=ipc), random_state=seed)
    rows, weights = _oracle(dataset, ipc, seed)
    assert rows_by_class(made, dataset) == rows
    np.testing.assert_allclose(made.sample_weight, np.concatenate(weights), rtol=1e-14)


@given(seed=st.integers(0, 10**6), ipc=st.integers(1, 5))
def test_weights_have_mean_one_in_every_class(seed: int, ipc: int) -> None:
    dataset = make_dataset((6, 5, 25), seed=seed)
    made = distill(dataset, KMeansNearest(ipc=ipc), random_state=seed)
    by_class = made.sample_weight.reshape(3, ipc)
    np.testing.assert_allclose(by_class.mean(axis=1), 1, rtol=1e-14)
    # Falling mass, and whole numbers of images.
    assert (np.diff(by_class, axis=1) <= 0).all()
    counted = by_class / ipc * dataset.class_counts[:, None]
    np.testing.assert_allclose(counted, np.rint(counted), atol=1e-12)


def test_masses_of_a_worked_example() -> None:
    images = np.array([200, 10, 12, 202, 14, 201, 11, 13], np.uint8).reshape(8, 1, 1, 1)
    dataset = dataset_of(images, np.zeros(8, np.int64), 1)
    made = distill(dataset, KMeansNearest(ipc=2, n_init=5), random_state=0)
    # Cells {10, ..., 14} and {200, 201, 202}, centroids 12 and 201.
    assert made.images.ravel().tolist() == [12, 201]
    assert made.sample_weight.tolist() == [5 / 8 * 2, 3 / 8 * 2]


@pytest.mark.parametrize(
    ("centroids", "values", "rows"),
    [
        ([180, 45], [0, 100, 200], [2, 0]),  # no collision: 180 takes 200, 45 takes 0
        ([90, 110], [0, 100, 250], [1, 0]),  # 100 is taken, and 0 is nearer to 110 than 250 is
        ([110, 90], [0, 100, 250], [1, 0]),
        ([100, 99, 98], [90, 90, 101, 250], [2, 0, 1]),  # equally near: the lower row
        ([99, 98, 97], [250, 100, 0], [1, 2, 0]),  # the last one takes what is left
        ([5, 5], [5, 5], [0, 1]),
    ],
)
def test_a_taken_image_leaves_the_next_nearest(
    centroids: list[int], values: list[int], rows: list[int]
) -> None:
    points = [np.array(numbers, np.float32)[:, None] for numbers in (values, centroids)]
    assert _nearest_distinct(*points).tolist() == rows


def test_equal_images_are_each_taken_once() -> None:
    images = np.array([7, 7, 7, 90, 7, 90], np.uint8).reshape(6, 1, 1, 1)
    dataset = dataset_of(images, np.zeros(6, np.int64), 1)
    with pytest.warns(EmptyCellWarning, match="group 0"):
        made = distill(dataset, KMeansNearest(ipc=4), random_state=0)
    assert_coreset(made, dataset, 4)
    assert made.images.ravel()[:2].tolist() == [7, 90]
    np.testing.assert_allclose(made.sample_weight, [4 / 6 * 4, 2 / 6 * 4, 0, 0])
    assert made.provenance.options["rows"][:2] == [0, 3]


def test_what_is_chosen_does_not_depend_on_other_classes() -> None:
    dataset = make_dataset((20, 15, 10), (1, 4, 4), seed=3)
    norm = Normalization.fit(dataset)
    whole = distill(dataset, KMeansNearest(ipc=4), normalization=norm, random_state=5)
    alone = dataset_of(dataset.images(), np.where(dataset.labels == 1, 1, 0), 2)
    part = distill(alone, KMeansNearest(ipc=4), normalization=norm, random_state=5)
    assert rows_by_class(part, alone)[1] == rows_by_class(whole, dataset)[1]


def test_options_reach_the_quantizer() -> None:
    dataset = make_dataset((60,), (1, 4, 4), seed=3)
    with pytest.warns(ddkern.ConvergenceWarning, match="max_iter=1 "):
        distill(dataset, KMeansNearest(ipc=5, max_iter=1), random_state=0)
    method = KMeansNearest(ipc=8, n_init=20)
    made = distill(dataset, method, random_state=0)
    q = ddkern.quantize(inputs_of(dataset, 0).astype(np.float32), 8, n_init=20, random_state=0)
    np.testing.assert_allclose(made.sample_weight, np.sort(q.weights)[::-1] * 8)
    assert method.options() == {
        "ipc": 8,
        "features": {"name": "pixels"},
        "n_init": 20,
        "max_iter": 300,
    }


@pytest.mark.parametrize("name", ["ipc", "n_init", "max_iter"])
def test_counts_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0; it must be an integer of at least 1"):
        KMeansNearest(**{"ipc": 1, name: 0})
