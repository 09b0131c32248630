# SPDX-License-Identifier: Apache-2.0
"""The checkpoints for tests are small, complete, and the same every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from ddkern.models import digest_of_weights  # noqa: E402
from helpers.tiny_diffusers import (  # noqa: E402
    make_autoencoder,
    make_text_encoder,
    make_tiny_autoencoder,
    make_transformer,
    make_unet,
    save_tiny_dit,
)


@pytest.mark.parametrize(
    "make",
    [
        make_autoencoder,
        make_tiny_autoencoder,
        make_transformer,
        make_unet,
        lambda: make_text_encoder()[0],
    ],
)
def test_models_are_small_and_the_same_every_time(make: Callable[[], Any]) -> None:
    before = torch.get_rng_state()
    model = make()
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert sum(weights.numel() for weights in model.parameters()) < 200_000
    assert digest_of_weights(model) == digest_of_weights(make())


def test_checkpoints_are_complete(tiny_dit: Path, tiny_stable_diffusion: Path) -> None:
    def folders(path: Path) -> set[str]:
        return {entry.name for entry in path.iterdir() if entry.is_dir()}

    assert folders(tiny_dit) == {"scheduler", "transformer", "vae"}
    expected = {"scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    assert folders(tiny_stable_diffusion) == expected
    for path in (tiny_dit, tiny_stable_diffusion):
        assert (path / "model_index.json").is_file()
        assert sum(file.stat().st_size for file in path.rglob("*")) < 2 << 20


def test_stock_pipeline_takes_a_dit_of_other_sizes(tmp_path: Path) -> None:
    path = save_tiny_dit(tmp_path / "dit", n_classes=3, channels=1, size=16)
    pipeline = diffusers.DiTPipeline.from_pretrained(path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline([0, 2], num_inference_steps=2, guidance_scale=1, output_type="np").images
    assert images.shape == (2, 16, 16, 1)
