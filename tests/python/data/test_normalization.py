# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddkern.data import ImageDataset, Normalization, Zca
from ddkern.data import dataset as dataset_module
from ddkern.data.dataset import ArrayImages
from helpers.datasets import make_images
from helpers.distilled import make_zca


def _dataset(images: np.ndarray) -> ImageDataset:
    labels = np.zeros(len(images), np.int64)
    source = ArrayImages(images, "made")
    return ImageDataset(
        "made", None, source, np.arange(len(images)), labels, ("0",), images.shape[1:]
    )


def _correlated(n: int, shape: tuple[int, int, int] = (3, 4, 4)) -> np.ndarray:
    """Images whose neighbouring values go together, as those of photographs do."""
    rng = np.random.default_rng(n)
    d = int(np.prod(shape))
    values = np.cumsum(rng.normal(size=(n, d)), axis=1) * 12 + 128
    return np.clip(values, 0, 255).astype(np.uint8).reshape(n, *shape)


IMAGES = _correlated(300)


def _zca_oracle(images: np.ndarray, eps: float) -> np.ndarray:
    """The definition, in float64, by another decomposition than the one under test."""
    flat = images.reshape(len(images), -1) / 255
    covariance = np.cov(flat, rowvar=False)  # divides by n - 1
    u, s, _ = np.linalg.svd(covariance)
    return ((flat - flat.mean(axis=0)) @ (u / np.sqrt(s + eps)) @ u.T).reshape(images.shape)


def test_mean_and_deviation_are_those_of_all_pixels() -> None:
    norm = Normalization.fit(_dataset(IMAGES))
    pixels = IMAGES.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(norm.mean, pixels.mean(axis=1), rtol=1e-13)
    np.testing.assert_allclose(norm.std, pixels.std(axis=1), rtol=1e-13)
    inputs = norm.apply(IMAGES)
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(inputs.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_sums_do_not_cancel() -> None:
    # Nearly constant and bright: the naive formula in float64 keeps few digits here.
    images = np.full((5000, 1, 16, 16), 255, np.uint8)
    images[0, 0, 0, 0] = 254
    norm = Normalization.fit(_dataset(images))
    n = images.size
    assert norm.std[0] * 255 == pytest.approx(np.sqrt(n - 1) / n, rel=1e-14)


def test_constant_channel() -> None:
    images = IMAGES.copy()
    images[:, 1] = 9
    with pytest.raises(ValueError, match="channel 1 of ImageDataset.* is constant"):
        Normalization.fit(_dataset(images))


@pytest.mark.parametrize("eps", [0.1, 1e-3])
def test_zca_is_its_definition(eps: float) -> None:
    norm = Normalization.fit(_dataset(IMAGES), zca=True, zca_eps=eps)
    assert norm.zca is not None
    assert norm.mean.tolist() == [0, 0, 0]
    assert norm.std.tolist() == [1, 1, 1]
    assert norm.zca.eps == eps
    np.testing.assert_array_equal(norm.zca.matrix, norm.zca.matrix.T)
    np.testing.assert_allclose(norm.apply(IMAGES), _zca_oracle(IMAGES, eps), atol=2e-5 / eps**0.5)


def test_zca_is_kept_in_two_precisions() -> None:
    zca = Zca([0.5, 0.5], np.eye(2), 0.1)
    assert (zca.mean.dtype, zca.matrix.dtype) == (np.float64, np.float32)


def test_zca_whitens() -> None:
    inputs = Normalization.fit(_dataset(IMAGES), zca=True, zca_eps=1e-9).apply(IMAGES)
    covariance = np.cov(inputs.reshape(300, -1), rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(48), atol=2e-3)


def test_zca_is_fitted_on_training_images_and_applied_to_others() -> None:
    train, test = IMAGES[:200], IMAGES[200:]
    norm = Normalization.fit(_dataset(train), zca=True)
    flat = train.reshape(200, -1) / 255
    u, s, _ = np.linalg.svd(np.cov(flat, rowvar=False))
    expected = (test.reshape(100, -1) / 255 - flat.mean(axis=0)) @ (u / np.sqrt(s + 0.1)) @ u.T
    np.testing.assert_allclose(norm.apply(test).reshape(100, -1), expected, atol=1e-5)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nearly black: sums of 2500 products pass 2**24, beyond which float32 rounds odd numbers.
    images = np.random.default_rng(4).integers(0, 2, (2500, 1, 5, 5), np.uint8)
    norms = []
    for chunk in (1 << 26, 25 * 7):
        monkeypatch.setattr(
            ImageDataset, "chunks", lambda self, size=chunk: _chunks(self, size), raising=True
        )
        norms.append(Normalization.fit(_dataset(images), zca=True))
    assert norms[0].zca is not None
    assert norms[1].zca is not None
    np.testing.assert_array_equal(norms[0].zca.matrix, norms[1].zca.matrix)
    np.testing.assert_array_equal(norms[0].zca.mean, norms[1].zca.mean)


_chunks = dataset_module.ImageDataset.chunks


@pytest.mark.parametrize("zca", [None, make_zca(48)])
def test_pixels_survive_the_way_there_and_back(zca: Zca | None) -> None:
    images = make_images(shape=(3, 4, 4))[0]
    norm = Normalization(np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.3, 0.4]), zca)
    np.testing.assert_array_equal(norm.to_pixels(norm.apply(images)), images)


def test_every_pixel_value_is_rounded_once() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    norm = Normalization.published("mnist")
    exact = (np.arange(256) / 255 - 0.1307) / 0.3081
    np.testing.assert_array_equal(norm.apply(ramp).ravel(), exact.astype(np.float32))


def test_pixels_beyond_black_and_white_are_cut_off() -> None:
    norm = Normalization.identity(1)
    values = np.array([-3.0, 0.0, 0.5, 1.0, 7.0], np.float32).reshape(1, 1, 1, 5)
    assert norm.to_pixels(values).ravel().tolist() == [0, 0, 128, 255, 255]


def test_published_numbers() -> None:
    norm = Normalization.published("cifar10")
    assert norm.mean.tolist() == [0.4914, 0.4822, 0.4465]
    assert norm.std.tolist() == [0.2023, 0.1994, 0.2010]
    with pytest.raises(ValueError, match=r"name='cifar'; it must be one of 'cifar10', 'mnist'"):
        Normalization.published("cifar")


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.1, 0.2], [1], r"mean has shape \(2,\) and std \(1,\)"),
        ([float("nan")], [1], "mean=.*; it must be finite"),
        ([0], [0], "std=.*; it must be above 0"),
        ([0], [float("inf")], "std=.*; it must be above 0"),
    ],
)
def test_bad_numbers(mean: Any, std: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normalization(np.array(mean, float), np.array(std, float))


@pytest.mark.parametrize(
    ("mean", "matrix", "eps", "message"),
    [
        (np.zeros(3), np.eye(4), 0.1, r"\(3,\) and a matrix of shape \(4, 4\)"),
        (np.zeros(3), np.full((3, 3), np.nan), 0.1, "zca holds NaN"),
        (np.zeros(3), np.eye(3), 0.0, "zca has eps=0.0"),
    ],
)
def test_bad_zca(mean: Any, matrix: Any, eps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Zca(mean, matrix.astype(np.float32), eps)


def test_shapes_are_checked() -> None:
    norm = Normalization(np.zeros(3), np.ones(3), make_zca(48))
    with pytest.raises(ValueError, match="is for 3 channels"):
        norm.apply(np.zeros((1, 1, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="its zca is for 48 values"):
        norm.apply(np.zeros((1, 3, 5, 4), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(3, 4, 4\); it must be \(n, channels"):
        norm.apply(np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(TypeError, match="dtype float32; pixels are uint8"):
        norm.apply(np.zeros((1, 3, 4, 4), np.float32))
    with pytest.raises(ValueError, match="48 values, which 5 channels do not divide"):
        Normalization(np.zeros(5), np.ones(5), make_zca(48))
    with pytest.raises(ValueError, match="has 1 image; a ZCA needs at least 2"):
        Normalization.fit(_dataset(IMAGES[:1]), zca=True)
