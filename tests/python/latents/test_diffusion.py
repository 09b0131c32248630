# SPDX-License-Identifier: Apache-2.0
"""What both codecs with a diffusion model promise: keyed noise, any division, checked arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from ddkern.errors import UnsupportedError  # noqa: E402
from ddkern.latents import (  # noqa: E402
    AutoencoderCodec,
    Codec,
    DitCodec,
    StableDiffusionCodec,
    check_codec,
)
from ddkern.latents.diffusion import guided  # noqa: E402
from helpers.bits import assert_same_array_bits  # noqa: E402
from helpers.tiny_diffusers import make_autoencoder, make_transformer  # noqa: E402

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 3, 32, 32), np.uint8)
LABELS = np.array([0, 2, 1, 1, 2, 0])
IDS = np.array([5, 0, 77, 2**40, 3, 9])
NAMES = ("cat", "dog", "ship")

Load = Callable[..., Codec]


@pytest.fixture(params=["dit", "stable-diffusion"])
def load(request: pytest.FixtureRequest) -> Load:
    """Return what loads either codec with options."""
    if request.param == "dit":
        folder = request.getfixturevalue("tiny_dit")
        return lambda **options: DitCodec.from_pretrained(folder, device="cpu", **options)
    folder = request.getfixturevalue("tiny_stable_diffusion")
    return lambda **options: StableDiffusionCodec.from_pretrained(
        folder, class_names=NAMES, device="cpu", **options
    )


def _close(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether images agree but for a few that were rounded the other way."""
    difference = np.abs(first.astype(int) - second)
    return bool(difference.max() <= 1 and (difference > 0).mean() < 1e-3)


def test_codec_keeps_the_contract(load: Load) -> None:
    codec = load(batch_size=4)
    check_codec(codec)
    assert codec.image_shape == (3, 32, 32)
    assert codec.latent_shape == (4, 8, 8)
    latents = codec.encode(IMAGES)
    plain = AutoencoderCodec(make_autoencoder(), batch_size=4)
    assert_same_array_bits(latents, plain.encode(IMAGES), "latents")
    images = codec.decode(latents, LABELS, steps=6)
    assert images.dtype == np.uint8
    assert images.shape == IMAGES.shape
    assert codec.encode(IMAGES[:0]).shape == (0, 4, 8, 8)
    assert codec.decode(latents[:0], LABELS[:0], steps=6).shape == (0, 3, 32, 32)


def test_same_call_has_the_same_bits(load: Load) -> None:
    codec, again = load(batch_size=4), load(batch_size=4)
    latents = codec.encode(IMAGES)
    first = codec.decode(latents, LABELS, steps=6, ids=IDS, seed=3)
    torch.manual_seed(123)
    codec.decode(latents, LABELS, steps=9)
    assert_same_array_bits(codec.decode(latents, LABELS, steps=6, ids=IDS, seed=3), first, "images")
    assert_same_array_bits(again.decode(latents, LABELS, steps=6, ids=IDS, seed=3), first, "images")
    assert again.describe() == codec.describe()


@pytest.mark.parametrize("scheduler", [None, "EulerAncestralDiscreteScheduler"])
def test_batches_and_order_do_not_matter(load: Load, scheduler: str | None) -> None:
    latents = load().encode(IMAGES)
    options: dict[str, Any] = {"steps": 6, "seed": 3, "strength": 0.8}
    expected = load(scheduler=scheduler).decode(latents, LABELS, ids=IDS, **options)
    for batch_size in (1, 4):
        codec = load(scheduler=scheduler, batch_size=batch_size)
        assert codec.batch_size == batch_size
        assert _close(codec.decode(latents, LABELS, ids=IDS, **options), expected)
    order = [4, 0, 3, 5, 1, 2]
    found = load(scheduler=scheduler).decode(
        latents[order], LABELS[order], ids=IDS[order], **options
    )
    assert _close(found, expected[order])


def test_seed_id_and_label_count(load: Load) -> None:
    codec = load()
    latents = codec.encode(IMAGES[:1]).repeat(4, axis=0)
    images = codec.decode(latents, [0, 0, 0, 1], ids=[0, 0, 1, 0], steps=6)
    assert _close(images[0], images[1])
    assert not _close(images[0], images[2])
    assert not _close(images[0], images[3])
    other = codec.decode(latents[:1], [0], ids=[0], steps=6, seed=1)
    assert not _close(images[0], other[0])
    default = codec.decode(latents, [0, 0, 0, 0], steps=6)
    given = codec.decode(latents, [0, 0, 0, 0], steps=6, ids=[0, 1, 2, 3], seed=0)
    assert_same_array_bits(default, given, "images")


def test_noise_of_every_step_is_keyed(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddkern.latents import diffusion

    seeds: list[int] = []

    def spy(predict: Any, scheduler: Any, latents: Any, noise: Any, **options: Any) -> Any:
        seeds.extend(generator.initial_seed() for generator in options["generators"])
        assert {generator.device.type for generator in options["generators"]} == {"cpu"}
        return latents

    monkeypatch.setattr(diffusion, "denoise", spy)
    codec = load(batch_size=4)
    latents = codec.encode(IMAGES)
    codec.decode(latents, LABELS, ids=IDS)
    codec.decode(latents[::-1], LABELS, ids=IDS[::-1])
    codec.decode(latents, LABELS, ids=IDS, seed=1)
    assert seeds[6:12] == seeds[:6][::-1]
    assert len(set(seeds)) == 12


def test_strength_nothing_is_the_autoencoder_alone(load: Load) -> None:
    codec = load(batch_size=6)
    latents = codec.encode(IMAGES)
    plain = AutoencoderCodec(make_autoencoder(), batch_size=6).decode(latents, LABELS)
    assert_same_array_bits(codec.decode(latents, LABELS, strength=0), plain, "images")
    less, more = (
        np.abs(codec.decode(latents, LABELS, strength=s, steps=10).astype(int) - plain).mean()
        for s in (0.2, 1)
    )
    assert 0 < less < more


def test_decoding_is_checked_and_complete(load: Load) -> None:
    codec = load()
    own = {"dit": 4.0, "stable-diffusion": 8.0}[codec.name]
    assert codec.decoding() == {"strength": 0.7, "steps": 50, "guidance": own}
    assert codec.decoding(0, 3, 1) == {"strength": 0.0, "steps": 3, "guidance": 1.0}
    assert codec.describe()["decoding"] == codec.decoding()
    changed = load(strength=0.5, guidance=2)
    assert changed.decoding() == {"strength": 0.5, "steps": 50, "guidance": 2.0}
    assert changed.decoding(steps=7) == {"strength": 0.5, "steps": 7, "guidance": 2.0}
    assert changed.describe() != codec.describe()
    latents = codec.encode(IMAGES)
    same = codec.decode(latents, LABELS, strength=0.5, steps=50, guidance=2)
    assert_same_array_bits(changed.decode(latents, LABELS), same, "images")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 1.1}, "strength=1.1; it must be a finite number of at least 0 and at most 1"),
        ({"strength": -0.1}, "strength=-0.1"),
        ({"steps": 0}, "steps=0; it must be an integer of at least 1"),
        ({"steps": 1001}, "steps=1001; it must be at most 1000, for which the diffusion model was"),
        ({"guidance": 0.9}, "guidance=0.9; it must be a finite number of at least 1"),
    ],
)
def test_bad_decoding(load: Load, arguments: dict[str, Any], message: str) -> None:
    codec = load()
    with pytest.raises(ValueError, match=message):
        codec.decoding(**arguments)
    with pytest.raises(ValueError, match=message):
        codec.decode(np.zeros((1, 4, 8, 8), np.float32), [0], **arguments)
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_bad_arguments_of_calls(load: Load) -> None:
    codec = load()
    latents = codec.encode(IMAGES)
    with pytest.raises(TypeError, match="images has dtype float32"):
        codec.encode(IMAGES.astype(np.float32))
    with pytest.raises(ValueError, match=r"latents has shape \(6, 4, 8\)"):
        codec.decode(latents[..., 0], LABELS)
    with pytest.raises(ValueError, match=r"labels\[2\]=\d+; it must hold one integer of at least"):
        codec.decode(latents, [0, 0, {"dit": 10}.get(codec.name, 3), 0, 0, 0])
    with pytest.raises(ValueError, match=r"ids\[0\]=-1"):
        codec.decode(latents, LABELS, ids=[-1, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="seed=-1"):
        codec.decode(latents, LABELS, seed=-1)
    latents[3, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="latents holds NaN or infinity in row 3"):
        codec.decode(latents, LABELS)


def test_denoiser_that_breaks_is_noticed(load: Load) -> None:
    codec = load(batch_size=2)
    latents = codec.encode(IMAGES)
    with torch.no_grad():
        for weights in codec._denoiser.parameters():
            weights.fill_(float("nan"))
    with pytest.raises(ValueError, match="the image of row 0 has NaN or infinity in float32"):
        codec.decode(latents, LABELS, steps=4)


def test_batch_size_follows_from_free_memory(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddkern.latents import diffusion

    # Four maps of eight channels as large as the canvas, and 32 as large as a latent.
    need = 32 * 32 * 4 * 8 * 4 + 8 * 8 * 32 * {"dit": 16 // 4}.get(load().name, 8) * 4
    for free, expected in ((0, 1), (8 * need - 1, 2), (8 * need, 4), (10**12, 256)):
        monkeypatch.setattr(diffusion, "free_bytes", lambda _, free=free: free)
        assert load().batch_size == expected


def test_sampler_that_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="scheduler='FlowMatchEulerDiscreteScheduler'; in the pla"):
        load(scheduler="FlowMatchEulerDiscreteScheduler")


def test_samples_of_posteriors(load: Load) -> None:
    codec, means = load(sample=True), load()
    assert codec.describe() != means.describe()
    first, other = (codec.encode(IMAGES, ids=IDS, seed=seed) for seed in (0, 1))
    assert not np.allclose(first, other, atol=1e-2)


def test_grey_images(load: Load) -> None:
    codec = load(image_shape=(1, 28, 28))
    images = IMAGES[:, :1, :28, :28]
    assert codec.decode(codec.encode(images), LABELS, steps=4).shape == images.shape


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(load: Load, dtype: str) -> None:
    codec = load(dtype=dtype)
    latents = load().encode(IMAGES)
    found = codec.decode(latents, LABELS, steps=4, strength=0.5)
    expected = load().decode(latents, LABELS, steps=4, strength=0.5)
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() < 2
    assert dtype in str(codec.describe())


def test_models_in_different_types_are_refused() -> None:
    scheduler = diffusers.DDIMScheduler()
    with pytest.raises(
        ValueError, match="the DiTTransformer2DModel is on cpu in torch.float32, but"
    ):
        DitCodec(make_autoencoder().to(torch.bfloat16), make_transformer(), scheduler)
    with pytest.raises(UnsupportedError, match="EDMEulerScheduler has no alphas_cumprod"):
        DitCodec(make_autoencoder(), make_transformer(), diffusers.EDMEulerScheduler())


def test_guidance_weighs_a_difference() -> None:
    conditional, unconditional = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.5])
    assert guided(conditional, unconditional, 1).tolist() == [1.0, 4.0]
    assert guided(conditional, unconditional, 3).tolist() == [-1.0, 3.0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("name", ["tiny_dit", "tiny_stable_diffusion"])
def test_gpu(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    names = {} if name == "tiny_dit" else {"class_names": NAMES}
    kind: Any = DitCodec if name == "tiny_dit" else StableDiffusionCodec
    here = kind.from_pretrained(folder, device="cpu", **names)
    latents = here.encode(IMAGES)
    expected = here.decode(latents, LABELS, steps=6)
    there = kind.from_pretrained(folder, device="cuda", dtype="float32", **names)
    # TF32, where torch allows it for convolutions, keeps ten bits.
    np.testing.assert_allclose(there.encode(IMAGES), latents, atol=2e-2)
    assert np.abs(there.decode(latents, LABELS, steps=6).astype(int) - expected).mean() < 2
    half = kind.from_pretrained(folder, **names)
    assert half.describe()["autoencoder"]["vae"]["dtype"] == "float16"
    found = half.decode(latents, LABELS, steps=6)
    assert np.abs(found.astype(int) - expected).mean() < 4
    assert_same_array_bits(half.decode(latents, LABELS, steps=6), found, "images")
