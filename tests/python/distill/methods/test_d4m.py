# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddkern.data import DistilledSet
from ddkern.distill import D4M, DDOQ, distill
from ddkern.latents import IdentityCodec
from helpers.bits import assert_same_array_bits
from helpers.coresets import make_dataset

pytest.importorskip("sklearn")

IPC = 3
SHAPE = (1, 3, 2)
COUNTS = (40, 33, 25)


def make(**options: Any) -> DistilledSet:
    method = D4M(ipc=IPC, codec=IdentityCodec(SHAPE), **options)
    return distill(make_dataset(COUNTS), method, random_state=5)


@pytest.mark.parametrize("chunk_per_image", [1, 4, 10, 100])
def test_minibatches_take_every_image_of_a_class(chunk_per_image: int) -> None:
    from sklearn.cluster import MiniBatchKMeans

    dataset = make_dataset(COUNTS)
    made = make(chunk_per_image=chunk_per_image)
    size = chunk_per_image * IPC
    for label in range(len(COUNTS)):
        rows = dataset.images(dataset.rows_of_class(label)).reshape(-1, 6)
        latents = rows.astype(np.float32) / np.float32(127.5) - 1
        seed = int(np.random.Generator(np.random.Philox(key=[5, label])).integers(1 << 32))
        reference = MiniBatchKMeans(IPC, random_state=seed, n_init="auto")
        seen = 0
        for start in range(0, len(latents), size):
            reference.partial_fit(latents[start : start + size])
            seen += len(latents[start : start + size])
        assert seen == COUNTS[label]
        expected = np.rint((reference.cluster_centers_ + 1) * 127.5)
        found = made.images[made.labels == label].reshape(IPC, 6)
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))


def test_lloyd_has_the_images_of_ddoq_without_the_masses() -> None:
    ddoq = distill(make_dataset(COUNTS), DDOQ(ipc=IPC, codec=IdentityCodec(SHAPE)), random_state=5)
    made = make(clustering="lloyd")
    assert_same_array_bits(made.images, ddoq.images, "images")
    assert (made.sample_weight == 1).all()
    assert (ddoq.sample_weight != 1).any()


def test_the_same_seed_gives_the_same_set_and_another_one_another() -> None:
    method = D4M(ipc=IPC, codec=IdentityCodec(SHAPE))
    one, two, other = (
        distill(make_dataset(COUNTS), method, random_state=seed).images for seed in (5, 5, 6)
    )
    assert_same_array_bits(one, two, "images")
    assert not np.array_equal(one, other)


def test_wrong_options() -> None:
    codec = IdentityCodec(SHAPE)
    with pytest.raises(ValueError, match=r"clustering='kmeans'; it must be one of 'minibatch'"):
        D4M(ipc=1, codec=codec, clustering="kmeans")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunk_per_image=0"):
        D4M(ipc=1, codec=codec, chunk_per_image=0)


def test_options_are_plain() -> None:
    assert make().provenance.options["clustering"] == "minibatch"
    assert make().provenance.options["chunk_per_image"] == 10
