# SPDX-License-Identifier: Apache-2.0
"""Folders and names of repositories, and what is said when something is not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

import huggingface_hub  # noqa: E402

from ddkern.latents import DECODING_FILE, Decoding  # noqa: E402
from ddkern.latents.checkpoint import find_checkpoint, load_decoding  # noqa: E402

DEFAULT = Decoding(strength=0.7, steps=50, guidance=4)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_dit: Path) -> str:
    """Return the name of a repository in a cache of its own, with the files of a DiTPipeline."""
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_dit, snapshot)
    (tmp_path / "models--someone--tiny" / "refs").mkdir()
    (tmp_path / "models--someone--tiny" / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(
        diffusers.configuration_utils, "HUGGINGFACE_HUB_CACHE", str(tmp_path), False
    )
    return "someone/tiny"


def test_folder(tiny_dit: Path) -> None:
    for given in (tiny_dit, str(tiny_dit)):
        checkpoint = find_checkpoint(given)
        assert checkpoint.is_folder
        assert checkpoint.read_json("model_index.json")["_class_name"] == "DiTPipeline"
        assert checkpoint.read_json("vae/config.json")["_class_name"] == "AutoencoderKL"
        assert checkpoint.read_json("nothing.json") is None
        vae = checkpoint.load(diffusers.AutoencoderKL, "vae")
        assert isinstance(vae, diffusers.AutoencoderKL)


def test_folder_comes_before_a_repository_of_that_name(
    tiny_dit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_dit.parent)
    assert find_checkpoint("dit").is_folder
    assert find_checkpoint("dit/vae").is_folder
    assert not find_checkpoint("dit/nowhere").is_folder


def test_name_of_a_repository(cached: str) -> None:
    checkpoint = find_checkpoint(cached)
    assert not checkpoint.is_folder
    assert checkpoint.read_json("model_index.json")["_class_name"] == "DiTPipeline"
    assert checkpoint.read_json("nothing.json") is None


@pytest.mark.parametrize("name", ["nowhere", "./a/b", "/a/b", "../b", "~/b", "a/b/c", "", "a/"])
def test_what_can_only_be_a_folder(name: str) -> None:
    with pytest.raises(
        FileNotFoundError, match="there is no such folder, and a repository of Hugg"
    ):
        find_checkpoint(name)


def test_path_is_no_name() -> None:
    with pytest.raises(FileNotFoundError, match="path_or_id='owner/name'; there is no such folder"):
        find_checkpoint(Path("owner/name"))
    with pytest.raises(
        TypeError, match="path_or_id is a int; it must be a folder or the name of a"
    ):
        find_checkpoint(3)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("facebook/DiT-XL-2-256", "about 3.1 GB, with the autoencoder"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "about 4.3 GB, without the safety checker"),
        ("someone/something", "size unknown"),
    ],
)
def test_what_is_missing_and_how_to_get_it(
    name: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    checkpoint = find_checkpoint(name)
    assert checkpoint.read_json("model_index.json") is None
    with pytest.raises(FileNotFoundError) as caught:
        checkpoint.load(diffusers.AutoencoderKL, "vae")
    message = str(caught.value)
    assert message.startswith(f"vae of '{name}' is neither in a folder of that name nor in the ca")
    assert "because HF_HUB_OFFLINE is set" in message
    assert f"({size})" in message
    assert f"'hf download {name}'" in message
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert "HF_HUB_OFFLINE is set" not in str(checkpoint.missing("vae"))


def test_folder_without_a_part(tiny_dit: Path) -> None:
    checkpoint = find_checkpoint(tiny_dit)
    with pytest.raises(FileNotFoundError, match="dit' has no unet that could be read"):
        checkpoint.load(diffusers.UNet2DConditionModel, "unet")


def test_broken_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="config.json is no JSON: "):
        find_checkpoint(tmp_path).read_json("config.json")


def test_own_values_of_decoding(tmp_path: Path) -> None:
    checkpoint = find_checkpoint(tmp_path)
    assert load_decoding(checkpoint, DEFAULT) == DEFAULT
    file = tmp_path / DECODING_FILE
    file.write_text('{"steps": 20, "guidance": 1.5}', encoding="utf-8")
    assert load_decoding(checkpoint, DEFAULT) == Decoding(strength=0.7, steps=20, guidance=1.5)
    file.write_text('{"step": 20}', encoding="utf-8")
    with pytest.raises(ValueError, match=f"{DECODING_FILE} of '.*{os.sep}.*' holds .* it must be"):
        load_decoding(checkpoint, DEFAULT)


def test_no_bars_for_files_that_are_there(
    tiny_stable_diffusion: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = transformers.utils.logging
    was_drawn = log.is_progress_bar_enabled()
    try:
        log.enable_progress_bar()
        find_checkpoint(tiny_stable_diffusion).load(transformers.CLIPTextModel, "text_encoder")
        assert capfd.readouterr().err == ""
        assert log.is_progress_bar_enabled()
    finally:
        if not was_drawn:
            log.disable_progress_bar()
