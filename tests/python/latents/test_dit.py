# SPDX-License-Identifier: Apache-2.0
"""Diffusion transformers: classes, the null class, guidance, and what does not fit together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from ddkern.latents import DECODING_FILE, DitCodec  # noqa: E402
from ddkern.latents.denoise import denoise  # noqa: E402
from ddkern.latents.noise import Purpose, draw_normal  # noqa: E402
from helpers.bits import assert_same_array_bits  # noqa: E402
from helpers.tiny_diffusers import (  # noqa: E402
    SCALING,
    make_autoencoder,
    make_tiny_autoencoder,
    make_transformer,
    make_unet,
    save_tiny_dit,
)

N_CLASSES = 10
RNG = np.random.default_rng(0)
LATENTS = RNG.normal(size=(4, 4, 8, 8)).astype(np.float32)
LABELS = np.array([3, 0, 9, 3])
MOVING, TIMESTEP = torch.from_numpy(LATENTS), torch.tensor(500)


def _make(**options: Any) -> DitCodec:
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return DitCodec(make_autoencoder(), make_transformer(N_CLASSES), scheduler, **options)


@torch.inference_mode()
def _alone(transformer: Any, latent: Any, label: int) -> Any:
    times = TIMESTEP.expand(1)
    output = transformer(latent[None], timestep=times, class_labels=torch.tensor([label])).sample
    return output[0, :4]


@pytest.mark.parametrize("guidance", [1.0, 1.5, 4.0])
def test_prediction_is_guided_from_the_null_class(guidance: float) -> None:
    codec, transformer = _make(), make_transformer(N_CLASSES)
    with torch.inference_mode():
        found = codec._predictor(LABELS, guidance)(MOVING, TIMESTEP)
    for row, label in enumerate(LABELS.tolist()):
        within = _alone(transformer, MOVING[row], label)
        without = _alone(transformer, MOVING[row], N_CLASSES)
        expected = without + guidance * (within - without)
        assert torch.allclose(found[row], expected, atol=1e-5)
    assert found.shape == MOVING.shape


@pytest.mark.parametrize(("guidance", "expected"), [(1, 4), (4, 8)])
def test_without_guidance_nothing_is_computed_twice(guidance: int, expected: int) -> None:
    codec = _make()
    sizes, rows = set(), set()
    forward = codec._denoiser.forward

    def spy(latents: Any, timestep: Any, class_labels: Any) -> Any:
        sizes.add(len(latents))
        rows.add(tuple(class_labels.tolist()))
        return forward(latents, timestep=timestep, class_labels=class_labels)

    codec._denoiser.forward = spy
    codec.decode(LATENTS, LABELS, steps=4, guidance=guidance)
    assert sizes == {expected}
    nothing = (N_CLASSES,) * 4 if guidance > 1 else ()
    assert rows == {(*LABELS.tolist(), *nothing)}


@torch.inference_mode()
def test_decoding_end_to_end() -> None:
    codec, transformer, vae = _make(), make_transformer(N_CLASSES), make_autoencoder()
    ids = np.array([4, 0, 8, 1])
    found = codec.decode(LATENTS, LABELS, strength=0.6, steps=10, guidance=3, ids=ids, seed=2)
    labels = torch.tensor([*LABELS, *[N_CLASSES] * 4])

    def predict(moving: Any, timestep: Any) -> Any:
        twice = torch.cat([moving, moving])
        output = transformer(twice, timestep=timestep.expand(8), class_labels=labels).sample[:, :4]
        return output[4:] + 3 * (output[:4] - output[4:])

    noise = torch.from_numpy(draw_normal(2, ids, Purpose.DIFFUSION, (4, 8, 8)))
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    clean = denoise(
        predict,
        scheduler,
        MOVING,
        noise,
        steps=10,
        strength=0.6,
        generators=[torch.Generator()] * 4,
    )
    values = vae.decode(clean / SCALING).sample.clamp(-1, 1)
    expected = ((values + 1) * 127.5).round().to(torch.uint8).numpy()
    assert_same_array_bits(found, expected, "images")


def test_classes_are_rows_of_the_label_table() -> None:
    plain, mapped = _make(), _make(classes=[9, 5, 3])
    labels = np.array([0, 1, 2, 2])
    expected = plain.decode(LATENTS, np.array([9, 5, 3, 3]), steps=5)
    assert_same_array_bits(mapped.decode(LATENTS, labels, steps=5), expected, "images")
    assert mapped.describe()["classes"] == [9, 5, 3]
    assert plain.describe()["classes"] is None
    assert _make(classes=range(3)).describe()["classes"] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"labels\[0\]=3; it must hold one integer .* less than 3"):
        mapped.decode(LATENTS, LABELS)


def test_classes_of_a_data_set() -> None:
    _make().check_classes(tuple("abcdefghij"))
    with pytest.raises(
        ValueError, match="class_names has 3 classes, but the label table of the tr"
    ):
        _make().check_classes(tuple("abc"))
    with pytest.raises(
        ValueError, match="class_names has 11 classes, but the label table of the tr"
    ):
        _make().check_classes(tuple("abcdefghijk"))
    mapped = _make(classes=[1, 1, 2])
    mapped.check_classes(("a", "b", "c"))
    with pytest.raises(ValueError, match="class_names has 2 classes; this DitCodec was made for 3"):
        mapped.check_classes(("a", "b"))


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (
            [0, 10],
            ValueError,
            r"classes\[1\]=10; it must be an integer of at least 0 and at most 9",
        ),
        ([-1], ValueError, r"classes\[0\]=-1"),
        ([0.5], TypeError, r"classes\[0\]=0.5 is a float"),
        ([], ValueError, "classes is empty; it must hold a row of the label table a label"),
        ("abc", TypeError, "classes='abc'; it must hold a row"),
        (3, TypeError, "classes=3; it must hold a row"),
    ],
)
def test_bad_classes(classes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _make(classes=classes)


def test_transformer_without_variances() -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    codec = DitCodec(make_autoencoder(), make_transformer(out_channels=4), scheduler)
    assert codec.decode(LATENTS, LABELS, steps=4).shape == (4, 3, 32, 32)


def test_autoencoder_without_posterior() -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    codec = DitCodec(make_tiny_autoencoder(), make_transformer(), scheduler)
    assert codec.image_shape == (3, 32, 32)
    assert codec.decode(LATENTS, LABELS, steps=4).shape == (4, 3, 32, 32)


def test_canvas_is_what_the_transformer_takes() -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    codec = DitCodec(make_autoencoder(), make_transformer(size=16), scheduler)
    assert codec.image_shape == (3, 16, 16)
    assert codec.latent_shape == (4, 4, 4)


def test_models_that_do_not_fit_together() -> None:
    scheduler = diffusers.DDIMScheduler()
    with pytest.raises(
        TypeError, match="transformer is a UNet2DConditionModel; it must be a DiTTra"
    ):
        DitCodec(make_autoencoder(), make_unet(), scheduler)
    with pytest.raises(TypeError, match="vae is a UNet2DConditionModel; it must be an Autoencoder"):
        DitCodec(make_unet(), make_transformer(), scheduler)
    with pytest.raises(
        ValueError, match="transformer takes latents of 3 channels, but vae makes 4"
    ):
        DitCodec(make_autoencoder(), make_transformer(in_channels=3), scheduler)
    with pytest.raises(TypeError, match="it must be a scheduler of diffusers"):
        DitCodec(make_autoencoder(), make_transformer(), "DDIMScheduler")


def test_folder_with_values_of_its_own(tiny_dit: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_dit, tmp_path / "dit")
    file = folder / DECODING_FILE
    file.write_text('{"strength": 0.25, "guidance": 1.5}', encoding="utf-8")
    codec = DitCodec.from_pretrained(folder, device="cpu")
    assert codec.decoding() == {"strength": 0.25, "steps": 50, "guidance": 1.5}
    codec = DitCodec.from_pretrained(folder, device="cpu", strength=0.5)
    assert codec.decoding() == {"strength": 0.5, "steps": 50, "guidance": 1.5}
    file.write_text('{"strength": 2}', encoding="utf-8")
    with pytest.raises(ValueError, match=f"{DECODING_FILE} of .*: strength=2.0; it must be"):
        DitCodec.from_pretrained(folder, device="cpu")


def test_folder_of_grey_images(tmp_path: Path) -> None:
    folder = save_tiny_dit(tmp_path / "dit", n_classes=3, channels=1, size=16)
    codec = DitCodec.from_pretrained(folder, device="cpu", image_shape=(1, 14, 14))
    codec.check_classes(("a", "b", "c"))
    images = RNG.integers(0, 256, (2, 1, 14, 14), np.uint8)
    assert codec.decode(codec.encode(images), [0, 2], steps=4).shape == images.shape


def test_layout_of_older_repositories(tiny_dit: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_dit, tmp_path / "dit")
    transformer = make_transformer(N_CLASSES)
    shutil.rmtree(folder / "transformer")
    transformer.save_pretrained(folder / "transformer", safe_serialization=False)
    file = folder / "transformer" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"_class_name": "Transformer2DModel", "num_vector_embeds": None}
    file.write_text(json.dumps(config), encoding="utf-8")
    assert [entry.suffix for entry in file.parent.iterdir() if entry != file] == [".bin"]
    found, expected = (DitCodec.from_pretrained(path, device="cpu") for path in (folder, tiny_dit))
    images = [codec.decode(LATENTS, LABELS, steps=4) for codec in (found, expected)]
    assert_same_array_bits(images[0], images[1], "images")


def test_folder_without_parts(tiny_dit: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_dit, tmp_path / "dit")
    for part in ("vae", "transformer", "scheduler"):
        shutil.rmtree(folder / part)
        with pytest.raises(FileNotFoundError, match=f"dit' has no {part}"):
            DitCodec.from_pretrained(folder, device="cpu")


def test_weights_and_options_are_described(tiny_dit: Path) -> None:
    codec = DitCodec.from_pretrained(tiny_dit, device="cpu")
    assert codec.describe() == _make().describe()
    assert set(codec.describe()) == {
        "name",
        "autoencoder",
        "transformer",
        "scheduler",
        "decoding",
        "classes",
    }
    other = DitCodec.from_pretrained(
        tiny_dit, device="cpu", scheduler="DPMSolverMultistepScheduler"
    )
    assert other.describe()["scheduler"]["class"] == "DPMSolverMultistepScheduler"
