# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from ddkern.priors import AutoencoderRecipe, DiffusionRecipe, PriorRecipe


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (AutoencoderRecipe, {"channels": ()}, r"channels=\(\)"),
        (AutoencoderRecipe, {"channels": (12,)}, r"norm_groups=8; it must divide channels=\(12,\)"),
        (AutoencoderRecipe, {"steps": 0}, "steps=0"),
        (AutoencoderRecipe, {"kl_weight": -1.0}, "kl_weight=-1"),
        (AutoencoderRecipe, {"lr": 0}, "lr=0; it must be above 0"),
        (DiffusionRecipe, {"layers": 0}, "layers=0"),
        (DiffusionRecipe, {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule='squaredcos"),
        (DiffusionRecipe, {"loss": "snr"}, "loss='snr'; it must be one of 'min_snr', 'plain'"),
        (DiffusionRecipe, {"class_dropout": 1.5}, "class_dropout=1.5"),
        (DiffusionRecipe, {"ema": 1.0}, "ema=1"),
        (PriorRecipe, {"strength": 2}, "strength=2"),
        (PriorRecipe, {"guidance": 0.5}, "guidance=0.5"),
        (PriorRecipe, {"sampler_steps": 0}, "sampler_steps=0"),
    ],
)
def test_wrong_values(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 16), "the diffusion transformer takes square ones"),
        ((1, 9, 9), "both sides must be divisible by 2"),
        ((1, 4, 4), "a prior needs at least 8 x 8"),
    ],
)
def test_images_that_do_not_fit(shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PriorRecipe().check_images(shape)


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64, 128])
def test_recipes_fit_the_images_they_are_for(side: int) -> None:
    recipe = PriorRecipe.for_images((3, side, side))
    recipe.check_images((3, side, side))
    assert side // recipe.autoencoder.factor >= 4


def test_effort_is_a_share_of_the_steps() -> None:
    recipe = PriorRecipe()
    half = recipe.shortened(0.5)
    assert half.autoencoder.steps == recipe.autoencoder.steps // 2
    assert half.diffusion.steps == recipe.diffusion.steps // 2
    assert recipe.shortened(1.0) == recipe
    assert recipe.shortened(1e-9).diffusion.steps == 1
    for share in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"share=.*; it must be above 0 and at most 1"):
            recipe.shortened(share)
