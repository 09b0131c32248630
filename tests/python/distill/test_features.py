# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddkern.data import ImageDataset, Normalization
from ddkern.distill import FeatureSpace, PcaFeatures, PixelFeatures
from ddkern.distill import features as module
from ddkern.distill.features import features_of_class
from helpers.bits import assert_same_array_bits
from helpers.coresets import make_dataset
from helpers.distilled import make_zca


def _features(
    space: FeatureSpace, dataset: ImageDataset, norm: Normalization, label: int
) -> NDArray[np.float32]:
    with space.opened(dataset, norm) as embed:
        return features_of_class(dataset, norm, embed, label)


def _correlated(counts: tuple[int, ...], shape: tuple[int, int, int], seed: int) -> ImageDataset:
    """Values that add up along an image, so that the variances of its components fall off."""
    rng = np.random.default_rng(seed)
    dataset = make_dataset(counts, shape, seed)
    steps = rng.normal(size=(len(dataset), int(np.prod(shape))))
    images = np.clip(128 + 25 * np.cumsum(steps, axis=1), 0, 255).astype(np.uint8)
    dataset.source.images[:] = images.reshape(len(dataset), *shape)
    return dataset


NORMS = {
    "fitted": Normalization.fit,
    "identity": lambda d: Normalization.identity(d.image_shape[0]),
    "far": lambda d: Normalization(np.full(3, -1000.0), np.full(3, 0.25)),
    "zca": lambda d: Normalization(np.zeros(3), np.ones(3), make_zca(12)),
}
every_norm = pytest.mark.parametrize("norm", NORMS)


@every_norm
@pytest.mark.parametrize("part", [1, 1 << 23])
def test_pixels_are_the_inputs(norm: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset((5, 1, 8), (3, 2, 2))
    normalization = NORMS[norm](dataset)
    monkeypatch.setattr(module, "_PART_BYTES", part)
    for label in range(3):
        found = _features(PixelFeatures(), dataset, normalization, label)
        images = dataset.images(dataset.rows_of_class(label))
        expected = normalization.apply(images).reshape(len(images), 12)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@every_norm
@pytest.mark.parametrize("part", [12, 12 * 7, 1 << 23])
def test_components_are_those_of_the_singular_value_decomposition(
    norm: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = _correlated((20, 15, 30), (3, 2, 2), 1)
    normalization = NORMS[norm](dataset)
    monkeypatch.setattr(module, "_PART_BYTES", part)
    x = normalization.apply(dataset.images()).reshape(len(dataset), 12).astype(np.float64)
    centred = x - x.mean(axis=0)
    _, s, rows = np.linalg.svd(centred, full_matrices=False)
    components = rows[:5] * np.sign(rows[np.arange(5), np.abs(rows[:5]).argmax(axis=1)])[:, None]
    for label in range(3):
        found = _features(PcaFeatures(n_components=5), dataset, normalization, label)
        expected = centred[dataset.labels == label] @ components.T
        assert found.dtype == np.float32
        # Float32 keeps 24 bits of each score; perturbations of the vectors are far below.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * s[0])


@given(seed=st.integers(0, 10**6), n_components=st.integers(1, 6))
def test_scores_are_uncorrelated_and_fall_off(seed: int, n_components: int) -> None:
    dataset = _correlated((25,), (1, 2, 3), seed)
    space = PcaFeatures(n_components=n_components)
    scores = _features(space, dataset, Normalization.fit(dataset), 0).astype(np.float64)
    assert scores.shape == (25, n_components)
    covariance = np.cov(scores, rowvar=False).reshape(n_components, n_components)
    assert (np.diff(np.diag(covariance)) <= 0).all()
    np.testing.assert_allclose(
        covariance - np.diag(np.diag(covariance)), 0, atol=1e-5 * covariance[0, 0]
    )
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-5 * covariance[0, 0] ** 0.5)


def test_all_components_keep_all_distances() -> None:
    dataset = make_dataset((9,), (1, 2, 2))
    norm = Normalization.fit(dataset)
    scores, pixels = (
        _features(space, dataset, norm, 0)
        for space in (PcaFeatures(n_components=4), PixelFeatures())
    )
    gaps = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (scores, pixels)]
    np.testing.assert_allclose(gaps[0], gaps[1], atol=1e-5)


def test_components_are_of_all_classes() -> None:
    dataset = make_dataset((9, 9), (1, 2, 2))
    norm = Normalization.identity(1)
    alone = dataset.subset(dataset.rows_of_class(0))
    space = PcaFeatures(n_components=2)
    assert not np.allclose(_features(space, dataset, norm, 0), _features(space, alone, norm, 0))


def test_sign_does_not_depend_on_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _correlated((30,), (1, 2, 3), 5)
    norm, space = Normalization.fit(dataset), PcaFeatures(n_components=4)
    expected = _features(space, dataset, norm, 0)
    solve = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (solve(a)[0], -solve(a)[1]))
    assert_same_array_bits(_features(space, dataset, norm, 0), expected, "scores")


@pytest.mark.parametrize(
    ("n", "n_components", "most"), [(4, 4, 3), (9, 7, 6), (1, 1, 0), (9, 100, 6)]
)
def test_too_many_components(n: int, n_components: int, most: int) -> None:
    dataset = make_dataset((n,), (1, 3, 2))
    with pytest.raises(
        ValueError,
        match=f"n_components={n_components}; it must be at most {most} for {n} images of 6 values",
    ):
        _features(PcaFeatures(n_components=n_components), dataset, Normalization.identity(1), 0)


def test_most_components() -> None:
    dataset = make_dataset((4,), (1, 3, 2))
    found = _features(PcaFeatures(n_components=3), dataset, Normalization.identity(1), 0)
    assert found.shape == (4, 3)


def test_number_of_components_is_checked() -> None:
    with pytest.raises(ValueError, match="n_components=0; it must be an integer of at least 1"):
        PcaFeatures(n_components=0)


def test_features_that_are_not_finite_are_refused() -> None:
    dataset = make_dataset((3, 4))
    norm = Normalization.identity(1)
    row = dataset.rows_of_class(1)[2]

    def embed(inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        bad = (inputs == norm.apply(dataset.images([row]))).all(axis=(1, 2, 3))
        return np.where(bad, 1e300, 0.0)[:, None]

    assert features_of_class(dataset, norm, embed, 0).shape == (3, 1)
    with pytest.raises(ValueError, match=f"features of row {row} hold NaN or infinity"):
        features_of_class(dataset, norm, embed, 1)
