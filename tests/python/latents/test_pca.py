# SPDX-License-Identifier: Apache-2.0
"""Scores on principal components of pixels, and their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddkern.data import ImageDataset
from ddkern.latents import PcaCodec
from ddkern.latents import pca as module
from helpers.bits import assert_same_array_bits
from helpers.coresets import make_dataset

pytest.importorskip("safetensors")


def _smooth(n: int = 30, shape: tuple[int, int, int] = (3, 2, 4), seed: int = 0) -> ImageDataset:
    rng = np.random.default_rng(seed)
    dataset = make_dataset((n // 2, n - n // 2), shape, seed)
    walks = np.cumsum(rng.normal(size=(n, int(np.prod(shape)))), axis=1)
    dataset.source.images[:] = np.clip(128 + 20 * walks, 0, 255).astype(np.uint8).reshape(n, *shape)
    return dataset


DATASET = _smooth()
CODEC = PcaCodec.fit(DATASET, 5)
IMAGES = DATASET.images()


def test_scores_are_projections_of_centred_values() -> None:
    values = IMAGES.reshape(30, 24) / 127.5 - 1
    centred = values - values.mean(axis=0)
    rows = np.linalg.svd(centred, full_matrices=False)[2][:5]
    rows *= np.sign(rows[np.arange(5), np.abs(rows).argmax(axis=1)])[:, None]
    latents = CODEC.encode(IMAGES)
    assert latents.dtype == np.float32
    assert latents.shape == (30, 5)
    np.testing.assert_allclose(latents, centred @ rows.T, atol=1e-5)
    decoded = np.clip(np.rint((latents @ rows + values.mean(axis=0) + 1) * 127.5), 0, 255)
    found = CODEC.decode(latents, np.zeros(30, np.int64)).reshape(30, 24).astype(int)
    assert (np.abs(found - decoded) <= 1).all()
    assert (found == decoded).mean() > 0.99


def test_all_components_lose_nothing() -> None:
    codec = PcaCodec.fit(DATASET, 24)
    decoded = codec.decode(codec.encode(IMAGES), DATASET.labels)
    np.testing.assert_array_equal(decoded, IMAGES)


def test_parts_of_a_data_set_and_of_a_call_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PART_BYTES", 24 * 7)
    codec = PcaCodec.fit(DATASET, 5)
    np.testing.assert_allclose(codec.components, CODEC.components, atol=1e-6)
    latents = CODEC.encode(IMAGES)
    monkeypatch.setattr(module, "_BATCH_BYTES", 8 * 24 * 4)
    assert CODEC.batch_size == 4
    np.testing.assert_allclose(CODEC.encode(IMAGES), latents, atol=1e-6)
    assert len(CODEC.decode(latents, DATASET.labels)) == 30
    assert CODEC.encode(IMAGES[:0]).shape == (0, 5)


def test_file_keeps_every_bit(tmp_path: Path) -> None:
    path = tmp_path / "pca.safetensors"
    CODEC.save(path)
    read = PcaCodec.load(path)
    assert read.image_shape == (3, 2, 4)
    assert read.describe() == CODEC.describe()
    assert_same_array_bits(read.encode(IMAGES), CODEC.encode(IMAGES), "latents")
    latents = CODEC.encode(IMAGES)
    labels = DATASET.labels
    assert_same_array_bits(read.decode(latents, labels), CODEC.decode(latents, labels), "images")


def test_description_tells_codecs_apart() -> None:
    record = CODEC.describe()
    assert record["name"] == "pca"
    assert record["n_components"] == 5
    assert record["image_shape"] == [3, 2, 4]
    others = [PcaCodec.fit(DATASET, 4), PcaCodec.fit(_smooth(seed=1), 5)]
    assert len({str(codec.describe()) for codec in (CODEC, *others)}) == 3
    assert CODEC.decoding() == {}
    CODEC.check_classes(("a",))


def test_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path='pca.npz'; it must end in .safetensors"):
        CODEC.save("pca.npz")
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        PcaCodec.load(path)
    import safetensors.numpy

    safetensors.numpy.save_file({"mean": np.zeros(3, np.float32)}, path)
    with pytest.raises(ValueError, match="is a safetensors file, but not one of a PcaCodec"):
        PcaCodec.load(path)


def test_bad_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="n_components=25; it must be at most 24 for 30 images"):
        PcaCodec.fit(DATASET, 25)
    monkeypatch.setattr(module, "_MOST_VALUES", 23)
    with pytest.raises(ValueError, match="'made' have 24 values each; PcaCodec takes at most 23"):
        PcaCodec.fit(DATASET, 2)
    with pytest.raises(ValueError, match="steps=3; it must be None for PcaCodec"):
        CODEC.decode(CODEC.encode(IMAGES), DATASET.labels, steps=3)
    with pytest.raises(ValueError, match=r"images has shape \(30, 2, 4\)"):
        CODEC.encode(IMAGES[:, 0])
    for arguments in ({"ids": [1]}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            CODEC.encode(IMAGES, **arguments)
        with pytest.raises(ValueError, match=next(iter(arguments))):
            CODEC.decode(CODEC.encode(IMAGES), DATASET.labels, **arguments)
    with pytest.raises(ValueError, match="labels has shape"):
        CODEC.decode(CODEC.encode(IMAGES), [1])
    mean, components = CODEC.mean, CODEC.components
    with pytest.raises(
        ValueError, match=r"mean has dtype float64 and shape \(24,\); it must be flo"
    ):
        PcaCodec((3, 2, 4), mean.astype(np.float64), components)
    with pytest.raises(ValueError, match=r"components has dtype float32 and shape \(23, 5\)"):
        PcaCodec((3, 2, 4), mean, components[1:])
    with pytest.raises(ValueError, match="components holds NaN or infinity"):
        PcaCodec((3, 2, 4), mean, components * np.float32(np.nan))
