# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from helpers.bits import assert_same_array_bits

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

import ddkern
from ddkern.estimators import KMeans

RNG = np.random.default_rng(2)
X = np.concatenate([RNG.normal(loc, 0.3, (40, 3)) for loc in (-4, 0, 5)])

# The check permutes the weighted rows but not the repeated ones. Draws follow the order of the
# rows, so other seeds are drawn; with the rows in the same order, repetition is bitwise
# (test_weights_mean_repetition).
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "the check permutes the rows, seeds follow it"
}


@parametrize_with_checks(
    [KMeans(n_clusters=3, random_state=0)], expected_failed_checks=lambda _: EXPECTED_FAILURES
)
def test_scikit_learn_conventions(estimator: Any, check: Any) -> None:
    check(estimator)


def test_clusters_and_attributes() -> None:
    kmeans = KMeans(n_clusters=3, random_state=0).fit(X)
    assert kmeans.cluster_centers_.shape == (3, 3)
    assert len(set(kmeans.labels_[:40])) == len(set(kmeans.labels_[40:80])) == 1
    assert kmeans.cluster_weights_.tolist() == [40 / 120] * 3
    assert type(kmeans.inertia_) is float
    assert type(kmeans.n_iter_) is int
    assert kmeans.n_features_in_ == 3
    np.testing.assert_array_equal(kmeans.predict(X), kmeans.labels_)
    np.testing.assert_array_equal(clone(kmeans).fit_predict(X), kmeans.labels_)


def test_is_quantize_with_one_group() -> None:
    kmeans = KMeans(n_clusters=5, random_state=3, tol=0, max_iter=50).fit(X)
    q = ddkern.quantize(X, 5, random_state=3, tol=0, max_iter=50)
    assert_same_array_bits(kmeans.cluster_centers_, q.centroids, "centroids")
    assert_same_array_bits(kmeans.labels_, q.assignment, "assignment")
    assert kmeans.inertia_ == q.inertia.item()


def test_reaches_what_scikit_learn_reaches_from_the_same_start() -> None:
    from sklearn.cluster import KMeans as SklearnKMeans

    init = X[[0, 1, 50, 51, 100]]
    theirs = SklearnKMeans(5, init=init, n_init=1, tol=0).fit(X)
    ours = KMeans(5, init=init, tol=0).fit(X)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    # Sums keep 40 bits below the largest deviation from the mean, which is less than 16 here.
    np.testing.assert_allclose(
        ours.cluster_centers_, theirs.cluster_centers_, rtol=0, atol=16 * 2.0**-40
    )
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-12)
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-6, atol=1e-12)
    assert ours.score(X) == pytest.approx(theirs.score(X), rel=1e-12)
    weight = RNG.random(len(X))
    assert ours.score(X, sample_weight=weight) == pytest.approx(
        theirs.score(X, sample_weight=weight), rel=1e-12
    )


def test_weights_mean_repetition() -> None:
    counts = np.arange(len(X)) % 4
    weighted = KMeans(6, random_state=0).fit(X, sample_weight=counts)
    repeated = KMeans(6, random_state=0).fit(X.repeat(counts, axis=0))
    for name in ("cluster_centers_", "cluster_weights_"):
        assert_same_array_bits(getattr(weighted, name), getattr(repeated, name), name)
    assert_same_array_bits(weighted.predict(X), repeated.predict(X), "predict")
    assert weighted.inertia_ == repeated.inertia_


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_type_is_kept(dtype: Any) -> None:
    kmeans = KMeans(3, random_state=0).fit(X.astype(dtype))
    assert kmeans.cluster_centers_.dtype == dtype
    assert kmeans.transform(X.astype(dtype)).dtype == dtype


def test_images_are_not_converted() -> None:
    pixels = RNG.integers(0, 255, (50, 12), dtype=np.uint8)
    kmeans = KMeans(4, random_state=0).fit(pixels)
    q = ddkern.quantize(pixels, 4, random_state=0)
    assert_same_array_bits(kmeans.cluster_centers_, q.centroids, "centroids")


def test_transform_of_one_cluster() -> None:
    kmeans = KMeans(1, random_state=0).fit(X)
    distance = kmeans.transform(X)
    assert distance.shape == (120, 1)
    np.testing.assert_allclose(distance[:, 0], np.linalg.norm(X - X.mean(axis=0), axis=1))


def test_random_states() -> None:
    first = KMeans(9, random_state=np.random.RandomState(0)).fit(X)
    second = KMeans(9, random_state=np.random.RandomState(0)).fit(X)
    assert_same_array_bits(first.cluster_centers_, second.cluster_centers_, "centroids")
    state = np.random.RandomState(0)
    draws = {KMeans(9, random_state=state)._seed() for _ in range(5)}
    assert len(draws) == 5


def test_no_random_state_leaves_numpys_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    KMeans(3).fit(X)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("init", "n_init", "expected"),
    [("k-means++", "auto", 1), ("random", "auto", 10), (X[:8], "auto", 1), ("random", 4, 4)],
)
def test_restarts(init: Any, n_init: Any, expected: int) -> None:
    assert KMeans(init=init, n_init=n_init)._restarts() == expected


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_clusters": 121}, ValueError, "n_samples=120 must be at least n_clusters=121"),
        ({"n_clusters": 0}, ValueError, "n_clusters=0; it must be an integer of at least 1"),
        ({"n_clusters": 2.0}, TypeError, r"n_clusters=2\.0 is a float"),
        ({"init": "pca"}, ValueError, "init='pca'"),
        ({"n_init": "many"}, TypeError, "n_init='many'"),
        ({"max_iter": 0}, ValueError, "max_iter=0"),
        ({"tol": -1}, ValueError, "tol=-1"),
        ({"algorithm": "elkan"}, ValueError, "algorithm='elkan'"),
        ({"n_threads": 0}, ValueError, "n_threads=0"),
        ({"random_state": -1}, ValueError, "random_state=-1"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        KMeans(**options).fit(X)


def test_pickle_round_trip() -> None:
    kmeans = KMeans(3, random_state=0).fit(X)
    again = pickle.loads(pickle.dumps(kmeans))  # noqa: S301 - our own bytes
    assert_same_array_bits(again.predict(X), kmeans.labels_, "labels")


def test_names_of_the_outputs() -> None:
    kmeans = KMeans(3, random_state=0).fit(X)
    assert kmeans.get_feature_names_out().tolist() == ["kmeans0", "kmeans1", "kmeans2"]
