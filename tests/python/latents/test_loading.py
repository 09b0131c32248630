# SPDX-License-Identifier: Apache-2.0
"""The codec for a folder, a file, or the name of a repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from ddkern.errors import UnsupportedError  # noqa: E402
from ddkern.latents import (  # noqa: E402
    AutoencoderCodec,
    DitCodec,
    PcaCodec,
    StableDiffusionCodec,
    load_codec,
)
from helpers.coresets import make_dataset  # noqa: E402

NAMES = ("a", "b", "c")


def test_folders(tiny_dit: Path, tiny_stable_diffusion: Path) -> None:
    dit = load_codec(tiny_dit, device="cpu", image_shape=(1, 28, 28), batch_size=3, classes=[1, 2])
    assert type(dit) is DitCodec
    assert (dit.image_shape, dit.batch_size) == ((1, 28, 28), 3)
    codec = load_codec(str(tiny_stable_diffusion), class_names=NAMES, device="cpu", template="a {}")
    assert type(codec) is StableDiffusionCodec
    assert codec.describe()["prompts"] == ["a a", "a b", "a c"]
    assert type(load_codec(tiny_dit / "vae", device="cpu", sample=True)) is AutoencoderCodec


def test_file(tmp_path: Path) -> None:
    made = PcaCodec.fit(make_dataset(), 3)
    path = tmp_path / "pca.safetensors"
    made.save(path)
    codec = load_codec(path, class_names=NAMES)
    assert type(codec) is PcaCodec
    assert codec.describe() == made.describe()
    with pytest.raises(TypeError, match="device is given, but the codec of a file has no options"):
        load_codec(path, device="cpu")


def test_classes_are_checked(tiny_dit: Path, tiny_stable_diffusion: Path) -> None:
    load_codec(tiny_dit, class_names=tuple("abcdefghij"), device="cpu")
    load_codec(tiny_dit, class_names=NAMES, classes=range(len(NAMES)), device="cpu")
    with pytest.raises(ValueError, match="class_names has 11 classes, but the label table"):
        load_codec(tiny_dit, class_names=tuple("abcdefghijk"), device="cpu")
    with pytest.raises(
        ValueError, match="class_names=None; Stable Diffusion needs them for its pro"
    ):
        load_codec(tiny_stable_diffusion, device="cpu")


def test_something_else(tmp_path: Path, tiny_dit: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="has no model_index.json or config.json that could"
    ):
        load_codec(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load_codec(tmp_path / "nowhere")
    with pytest.raises(
        UnsupportedError, match="transformer' holds a DiTTransformer2DModel; there ar"
    ):
        load_codec(tiny_dit / "transformer")
    index = {"_class_name": "StableDiffusionXLPipeline"}
    (tmp_path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    message = "holds a StableDiffusionXLPipeline; there are codecs for DiTPipeline, StableDiffusion"
    with pytest.raises(UnsupportedError, match=message):
        load_codec(tmp_path)
