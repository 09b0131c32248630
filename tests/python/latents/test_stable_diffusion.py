# SPDX-License-Identifier: Apache-2.0
"""Stable Diffusion: prompts, guidance, and the images of the stock pipeline."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from ddkern.errors import UnsupportedError  # noqa: E402
from ddkern.latents import StableDiffusionCodec, diffusion  # noqa: E402
from ddkern.latents.stable_diffusion import NEGATIVE_PROMPT  # noqa: E402
from helpers.tiny_diffusers import (  # noqa: E402
    make_autoencoder,
    make_text_encoder,
    make_transformer,
    make_unet,
)

NAMES = ("cat", "great white shark", "ship")
RNG = np.random.default_rng(0)
LATENTS = 0.8 * RNG.normal(size=(4, 4, 8, 8)).astype(np.float32)
LABELS = np.array([1, 0, 2, 1])


def _make(unet: Any = None, vae: Any = None, **options: Any) -> StableDiffusionCodec:
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return StableDiffusionCodec(
        make_autoencoder() if vae is None else vae,
        make_unet() if unet is None else unet,
        *make_text_encoder(),
        scheduler,
        **{"class_names": NAMES} | options,
    )


@pytest.mark.parametrize("guidance", [1.0, 8.0])
@pytest.mark.parametrize("strength", [0.5, 0.7])
def test_images_are_those_of_the_stock_pipeline(
    strength: float,
    guidance: float,
    tiny_stable_diffusion: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
        tiny_stable_diffusion, local_files_only=True, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt=[f"a photo of a {NAMES[label]}" for label in LABELS],
        negative_prompt=[NEGATIVE_PROMPT] * 4,
        image=torch.from_numpy(LATENTS),
        strength=strength,
        guidance_scale=guidance,
        num_inference_steps=20,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images.transpose(0, 3, 1, 2)
    codec = StableDiffusionCodec.from_pretrained(
        tiny_stable_diffusion, class_names=NAMES, template="a photo of a {}", device="cpu"
    )
    noise = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(5)).numpy()
    monkeypatch.setattr(diffusion, "draw_normal", lambda *_: noise)
    found = codec.decode(LATENTS, LABELS, strength=strength, steps=20, guidance=guidance)
    assert np.abs(found - 255 * expected).max() < 0.51
    assert found.std() > 3


def test_prompts_come_from_names_and_template() -> None:
    codec = _make(template="{}, a photo of {}", negative_prompt="fog")
    assert codec.describe()["prompts"][1] == "great white shark, a photo of great white shark"
    assert codec.describe()["negative_prompt"] == "fog"
    assert _make().describe()["prompts"] == list(NAMES)
    assert _make().describe()["negative_prompt"] == "cartoon, anime, painting"
    assert _make(class_names=["{0}", "%s"]).describe()["prompts"] == ["{0}", "%s"]


def test_prompts_are_encoded_once_a_class_that_is_asked_for() -> None:
    codec = _make()
    calls = []
    codec._text_encoder.register_forward_hook(lambda *_: calls.append(1))
    codec.decode(LATENTS, LABELS, steps=3, guidance=1)
    assert len(calls) == 3
    codec.decode(LATENTS, LABELS, steps=3, guidance=2)
    assert len(calls) == 4
    codec.decode(LATENTS, LABELS, steps=3, guidance=3)
    assert len(calls) == 4
    calls.clear()
    fresh = _make()
    fresh._text_encoder.register_forward_hook(lambda *_: calls.append(1))
    fresh.decode(LATENTS[:1], LABELS[:1], steps=3)
    assert len(calls) == 2
    fresh.decode(LATENTS[:1], LABELS[:1], strength=0)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@torch.inference_mode()
def test_prediction_is_guided_from_the_negative_prompt(guidance: float) -> None:
    codec, unet = _make(), make_unet()
    encoder, tokenizer = make_text_encoder()

    def embed(prompt: str) -> Any:
        options: dict[str, Any] = {
            "padding": "max_length",
            "max_length": 77,
            "return_tensors": "pt",
        }
        return encoder(tokenizer(prompt, **options).input_ids)[0]

    moving, timestep = torch.from_numpy(LATENTS), torch.tensor(300)
    found = codec._predictor(LABELS, guidance)(moving, timestep)
    for row, label in enumerate(LABELS.tolist()):
        within, without = (
            unet(moving[row : row + 1], timestep, embed(prompt)).sample[0]
            for prompt in (NAMES[label], NEGATIVE_PROMPT)
        )
        expected = without + guidance * (within - without)
        assert torch.allclose(found[row], expected, atol=1e-5)


def test_classes_of_a_data_set() -> None:
    codec = _make()
    codec.check_classes(("n01", "n02", "n03"))
    with pytest.raises(
        ValueError, match="class_names has 2 classes; this StableDiffusionCodec was"
    ):
        codec.check_classes(("a", "b"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"class_names": "cat"},
            TypeError,
            "class_names='cat'; it must hold a name for each class",
        ),
        (
            {"class_names": []},
            ValueError,
            "class_names is empty; it must hold a name for each clas",
        ),
        ({"class_names": ["a", 3]}, TypeError, r"class_names\[1\]=3 is a int; it must hold a name"),
        ({"class_names": ["a", " "]}, ValueError, r"class_names\[1\]=' '; it must hold a name"),
        (
            {"template": "a photo"},
            ValueError,
            "template='a photo'; it must be a str that holds '{}'",
        ),
        ({"template": None}, ValueError, "template=None; it must be a str that holds"),
        ({"negative_prompt": None}, TypeError, "negative_prompt is a NoneType; it must be a str"),
        (
            {"class_names": ["a", "b" * 76]},
            ValueError,
            "the prompt 'b+' has 78 tokens; it must have",
        ),
        (
            {"negative_prompt": "fog " * 30},
            ValueError,
            "the prompt 'fog .*' has 92 tokens; it must",
        ),
        (
            {"canvas_size": 30},
            ValueError,
            "canvas_size=30; height and width must be multiples of 4",
        ),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _make(**options)


def test_longest_prompt() -> None:
    codec = _make(class_names=["b" * 75])
    assert codec.decode(LATENTS, [0] * 4, steps=3).shape == (4, 3, 32, 32)


def test_names_are_checked_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="class_names is empty"):
        StableDiffusionCodec.from_pretrained("someone/something", class_names=[])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"time_cond_proj_dim": 8}, "unet has time_cond_proj_dim=8; only U-Nets that need nothing"),
        (
            {"class_embed_type": "timestep"},
            "unet has class_embed_type='timestep'; only U-Nets that need nothing but a prompt",
        ),
    ],
)
def test_unets_that_need_more_than_a_prompt(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        _make(make_unet(**config))


def test_models_that_do_not_fit_together() -> None:
    with pytest.raises(
        TypeError, match="unet is a DiTTransformer2DModel; it must be a UNet2DCondit"
    ):
        _make(make_transformer())
    with pytest.raises(
        ValueError, match="unet takes latents of 9 channels and gives 4, but vae mak"
    ):
        _make(make_unet(in_channels=9))
    with pytest.raises(TypeError, match="vae is a UNet2DConditionModel"):
        _make(vae=make_unet())


@pytest.mark.parametrize(
    ("size", "canvas"), [(None, (32, 32)), (16, (16, 16)), ((16, 24), (16, 24))]
)
def test_canvas(size: int | Sequence[int] | None, canvas: tuple[int, int]) -> None:
    codec = _make(canvas_size=size)
    assert codec.image_shape == (3, *canvas)
    images = RNG.integers(0, 256, (2, 3, *canvas), np.uint8)
    assert codec.decode(codec.encode(images), [0, 1], steps=3).shape == images.shape


def test_canvas_of_a_unet_that_is_not_square() -> None:
    assert _make(make_unet(sample_size=(4, 6))).image_shape == (3, 16, 24)


def test_everything_is_described(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    def load(folder: Path = tiny_stable_diffusion, **options: Any) -> dict[str, Any]:
        options = {"class_names": NAMES, "device": "cpu"} | options
        return StableDiffusionCodec.from_pretrained(folder, **options).describe()

    record = load()
    assert record["name"] == "stable-diffusion"
    assert record["unet"]["class"] == "UNet2DConditionModel"
    assert record["text_encoder"]["class"] == "CLIPTextModel"
    assert record["scheduler"]["class"] == "PNDMScheduler"
    assert record == load()
    # Another vocabulary makes other tokens of the same prompts.
    folder = shutil.copytree(tiny_stable_diffusion, tmp_path / "other")
    for file in (folder / "tokenizer").iterdir():
        text = file.read_text(encoding="utf-8")
        file.write_text(
            text.replace('"c": 2,', '"c": 4,').replace('"e": 4,', '"e": 2,'), encoding="utf-8"
        )
    others = [
        load(template="a {}"),
        load(negative_prompt=""),
        load(class_names=NAMES[::-1]),
        load(scheduler="DDIMScheduler"),
        load(folder),
    ]
    assert len({str(entry) for entry in (record, *others)}) == 6


def test_folder_without_parts(tiny_stable_diffusion: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_stable_diffusion, tmp_path / "sd")
    for part in ("tokenizer", "vae", "text_encoder", "unet", "scheduler"):
        shutil.rmtree(folder / part)
        with pytest.raises(FileNotFoundError, match=f"sd' has no {part}"):
            StableDiffusionCodec.from_pretrained(folder, class_names=NAMES, device="cpu")
