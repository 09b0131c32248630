# SPDX-License-Identifier: Apache-2.0
"""Protocols are frozen: a field that changes needs a new version."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from ddkern.augment import DSA, RandomResizedCrop, ShufflePatches  # noqa: E402
from ddkern.evaluate import get_protocol, protocol_names  # noqa: E402

# Never edit a line: a changed protocol gets a new one, with a new version.
DIGESTS = {
    "E1-dc@1": "825f805aff67d6dedf2cd3f8f11949222e8db9712795cf15660b84abe24254f5",
    "E1-dsa@1": "589d16c12ceee79a832c7c4e8ea3d378016946900ec595bf225ef92a758bbad6",
    "E2@1": "e1bc203932d1e245f3ba5132640c84ae65a0157924c6fbfe023c98ec3603d7ab",
    "E2-online@1": "fc191ebf239d73f101df4727dede5833859160f61fbde09134ccfd07796612d8",
    "E3@1": "ed6c2075cab108a1fa1fac37968f5fd4848e05e18daecca4d0f9b3a04c41bd11",
    "E9@1": "ecdf97542b880db85240780fc33d6992ffba5f14b31a8cf7ac99b29f2ff343d9",
    "small@1": "5cec759b97b04bb079c23efe9f268be5c89f190d90d63600936de66b503b606b",
}


def test_every_version_is_what_it_was() -> None:
    found = {get_protocol(name).key: get_protocol(name).digest() for name in protocol_names()}
    assert found == {key: DIGESTS[key] for key in found}


@pytest.mark.parametrize("key", DIGESTS)
def test_every_version_is_still_there(key: str) -> None:
    assert get_protocol(key).digest() == DIGESTS[key]


def test_the_loop_of_dc_runs_an_epoch_more_and_decays_late() -> None:
    for name, epochs in (("E1-dc", 300), ("E1-dsa", 1000)):
        recipe = get_protocol(name).recipe
        factors = [recipe.decay.at_epoch(e, recipe.epochs) for e in range(recipe.epochs)]
        assert len(factors) == epochs + 1
        assert factors.count(1.0) == epochs // 2 + 2
        assert recipe.decay.restarts_at(epochs // 2 + 2)


def test_augmentations() -> None:
    assert get_protocol("E1-dc").recipe.augment == ()
    assert get_protocol("E1-dsa").recipe.augment == (DSA(),)
    assert get_protocol("E2").recipe.augment == (RandomResizedCrop(scale=(0.08, 1.0)),)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("E7", "protocol='E7'; the protocols are E1-dc, E1-dsa"),
        ("E1-dsa@2", "E1-dsa has no version '2', only E1-dsa@1"),
        ("E1-dsa@one", "E1-dsa has no version 'one'"),
        ("E1-dsa@", "has no version ''"),
    ],
)
def test_unknown_protocol_or_version(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_protocol(name)


def test_protocol_must_be_a_name() -> None:
    with pytest.raises(TypeError, match="protocol is a int"):
        get_protocol(1)


@pytest.mark.parametrize(
    ("side", "model"),
    [(8, "convnet-d3"), (32, "convnet-d3"), (64, "convnet-d4"), (128, "convnet-d5")],
)
def test_depth_follows_the_side(side: int, model: str) -> None:
    assert get_protocol("E1-dsa").model_for((side, side)) == model


@pytest.mark.parametrize("size", [(4, 4), (224, 224), (32, 4)])
def test_images_that_do_not_fit(size: tuple[int, int]) -> None:
    with pytest.raises(
        ValueError, match=f"sides of 8 to 128 pixels; these have {size[0]} x {size[1]}"
    ):
        get_protocol("E1-dsa").model_for(size)


def test_patches_are_shuffled_in_large_images_alone() -> None:
    protocol = get_protocol("E3")
    assert any(isinstance(a, ShufflePatches) for a in protocol.recipe_for((224, 224), None).augment)
    small = protocol.recipe_for((32, 32), None).augment
    assert small == (RandomResizedCrop(scale=(1.0, 1.0)),)
    assert get_protocol("E2").recipe_for((32, 32), None) == get_protocol("E2").recipe


@pytest.mark.parametrize(
    ("share", "epochs"),
    [(0.01, 1000), (0.05, 1000), (0.1, 500), (0.2, 250), (0.3, 167), (0.9, 167)],
)
def test_epochs_follow_the_share(share: float, epochs: int) -> None:
    assert get_protocol("E9").recipe_for((32, 32), share).epochs == epochs


def test_share_is_needed() -> None:
    with pytest.raises(ValueError, match="n_train=None"):
        get_protocol("E9").recipe_for((32, 32), None)


def test_looks() -> None:
    assert get_protocol("E1-dc").test_epochs(301) == (300,)
    assert get_protocol("E2").test_epochs(25) == (9, 19, 24)
    assert get_protocol("E3").test_epochs(300) == tuple(range(240, 300))
    assert get_protocol("E1-dc").test_epochs(301, looks=3) == (99, 199, 300)
    assert get_protocol("E1-dc").test_epochs(4, looks=4) == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="looks=5; it must be .* at most 4"):
        get_protocol("E1-dc").test_epochs(4, looks=5)
