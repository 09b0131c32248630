# SPDX-License-Identifier: Apache-2.0
"""Models and samplers as plain values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from ddkern.latents.model_record import describe_model, describe_scheduler  # noqa: E402
from ddkern.models import digest_of_weights  # noqa: E402
from helpers.tiny_diffusers import make_autoencoder, make_text_encoder  # noqa: E402


def test_model() -> None:
    vae = make_autoencoder()
    record = describe_model(vae)
    assert record["class"] == "AutoencoderKL"
    assert record["dtype"] == "float32"
    assert record["weights"] == digest_of_weights(vae)
    assert record["config"]["scaling_factor"] == 0.18215
    assert json.loads(json.dumps(record)) == record
    assert describe_model(make_autoencoder()) == record


def test_what_results_depend_on_counts() -> None:
    records = [
        describe_model(vae)
        for vae in (
            make_autoencoder(),
            make_autoencoder(scaling_factor=0.5),
            make_autoencoder(shift_factor=0.1),
            make_autoencoder().to(torch.bfloat16),
        )
    ]
    assert len({json.dumps(record) for record in records}) == 4


def test_where_it_was_read_does_not_count(tmp_path: Path) -> None:
    vae = make_autoencoder()
    vae.save_pretrained(tmp_path)
    read = diffusers.AutoencoderKL.from_pretrained(tmp_path, local_files_only=True)
    assert describe_model(read) == describe_model(vae)


def test_model_of_transformers() -> None:
    record = describe_model(make_text_encoder()[0])
    assert record["class"] == "CLIPTextModel"
    assert record["config"]["hidden_size"] == 16
    assert not [name for name in record["config"] if "version" in name]
    assert json.loads(json.dumps(record)) == record


def test_scheduler() -> None:
    scheduler = diffusers.DDIMScheduler(trained_betas=np.linspace(0.1, 0.2, 4), steps_offset=1)
    record = describe_scheduler(scheduler)
    assert record["class"] == "DDIMScheduler"
    assert record["config"]["steps_offset"] == 1
    assert record["config"]["trained_betas"] == np.linspace(0.1, 0.2, 4).tolist()
    assert not [name for name in record["config"] if name.startswith("_")]
    assert json.loads(json.dumps(record)) == record
