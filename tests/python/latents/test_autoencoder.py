# SPDX-License-Identifier: Apache-2.0
"""Autoencoders of diffusers: scaling, posteriors, canvases, tiles, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from ddkern.latents import AutoencoderCodec  # noqa: E402
from ddkern.latents import autoencoder as module  # noqa: E402
from ddkern.latents.noise import Purpose, draw_normal  # noqa: E402
from helpers.bits import assert_same_array_bits  # noqa: E402
from helpers.tiny_diffusers import (  # noqa: E402
    SCALING,
    make_autoencoder,
    make_tiny_autoencoder,
    make_transformer,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), np.uint8)
LABELS = np.zeros(5, np.int64)
CODEC = AutoencoderCodec(make_autoencoder())
LATENTS = CODEC.encode(IMAGES)


def _values(images: np.ndarray) -> Any:
    return torch.from_numpy(images / np.float32(127.5) - np.float32(1))


@torch.inference_mode()
def test_latents_are_scaled_means_of_posteriors() -> None:
    posterior = make_autoencoder().encode(_values(IMAGES)).latent_dist
    expected = (posterior.mean * SCALING).numpy()
    assert LATENTS.dtype == np.float32
    assert LATENTS.shape == (5, 4, 8, 8) == (5, *CODEC.latent_shape)
    np.testing.assert_allclose(LATENTS, expected, atol=1e-6)


@torch.inference_mode()
def test_images_are_decoded_and_rounded() -> None:
    values = make_autoencoder().decode(torch.from_numpy(LATENTS) / SCALING).sample
    expected = ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    found = CODEC.decode(LATENTS, LABELS)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found == expected).mean() > 0.999
    assert found.std() > 3


@pytest.mark.parametrize(("scaling_factor", "shift_factor"), [(0.18215, None), (1.5, 0.12)])
@torch.inference_mode()
def test_scaling_and_shift_are_undone(scaling_factor: float, shift_factor: float | None) -> None:
    vae = make_autoencoder(scaling_factor=scaling_factor, shift_factor=shift_factor)
    codec = AutoencoderCodec(vae)
    latents = codec.encode(IMAGES)
    raw = (LATENTS / SCALING - (shift_factor or 0)) * scaling_factor
    np.testing.assert_allclose(latents, raw, atol=1e-6)
    # The networks are the same, so the same image comes back whatever lies between.
    difference = codec.decode(latents, LABELS).astype(int) - CODEC.decode(LATENTS, LABELS)
    assert np.abs(difference).max() <= 1


def test_draws_from_the_posterior_are_keyed() -> None:
    codec = AutoencoderCodec(make_autoencoder(), sample=True, batch_size=3)
    ids = np.array([7, 3, 900, 0, 1])
    drawn = codec.encode(IMAGES, ids=ids, seed=5)
    with torch.inference_mode():
        posterior = make_autoencoder().encode(_values(IMAGES)).latent_dist
    noise = draw_normal(5, ids, Purpose.POSTERIOR, (4, 8, 8))
    expected = (posterior.mean.numpy() + posterior.std.numpy() * noise) * SCALING
    np.testing.assert_allclose(drawn, expected, atol=1e-6)
    assert not np.allclose(drawn, LATENTS, atol=1e-2)
    order = [4, 1, 0, 3, 2]
    shuffled = codec.encode(IMAGES[order], ids=ids[order], seed=5)
    np.testing.assert_allclose(shuffled, drawn[order], atol=1e-5)
    assert not np.allclose(codec.encode(IMAGES, ids=ids, seed=6), drawn, atol=1e-2)
    assert_same_array_bits(
        codec.encode(IMAGES, seed=2), codec.encode(IMAGES, ids=range(5), seed=2), "latents"
    )


def test_arrays_of_any_strides() -> None:
    codec = AutoencoderCodec(make_autoencoder(), batch_size=5)
    backwards = codec.encode(IMAGES[::-1, :, ::-1])
    expected = codec.encode(IMAGES[::-1, :, ::-1].copy())
    assert_same_array_bits(backwards, expected, "latents")
    images = codec.decode(LATENTS[::-1, ::-1], LABELS)
    assert_same_array_bits(images, codec.decode(LATENTS[::-1, ::-1].copy(), LABELS), "images")


def test_means_do_not_depend_on_the_seed() -> None:
    assert_same_array_bits(CODEC.encode(IMAGES, seed=9), LATENTS, "latents")


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_do_not_matter(batch_size: int) -> None:
    codec = AutoencoderCodec(make_autoencoder(), batch_size=batch_size)
    assert codec.batch_size == batch_size
    sizes = []
    encode = codec._vae.encode
    codec._vae.encode = lambda values: sizes.append(len(values)) or encode(values)
    np.testing.assert_allclose(codec.encode(IMAGES), LATENTS, atol=1e-5)
    assert max(sizes) == batch_size
    assert sum(sizes) == 5
    difference = codec.decode(LATENTS, LABELS).astype(int) - CODEC.decode(LATENTS, LABELS)
    assert np.abs(difference).max() <= 1
    assert codec.encode(IMAGES[:0]).shape == (0, 4, 8, 8)
    assert codec.decode(LATENTS[:0], LABELS[:0]).shape == (0, 3, 32, 32)


def test_small_grey_images_on_a_canvas() -> None:
    codec = AutoencoderCodec(make_autoencoder(), image_shape=(1, 28, 28))
    images = IMAGES[:, :1, :28, :28]
    latents = codec.encode(images)
    assert latents.shape == (5, 4, 8, 8)
    found = codec.decode(latents, LABELS)
    assert found.shape == (5, 1, 28, 28)
    assert codec.describe()["canvas"] == [3, 32, 32]


@pytest.mark.parametrize(
    ("image_shape", "canvas_size", "canvas"),
    [
        (None, None, (32, 32)),
        ((3, 17, 20), None, (32, 32)),
        ((3, 17, 20), 16, (16, 16)),
        ((3, 17, 20), (8, 12), (8, 12)),
        (None, (8, 12), (8, 12)),
    ],
)
def test_canvas(image_shape: Any, canvas_size: Any, canvas: tuple[int, int]) -> None:
    codec = AutoencoderCodec(make_autoencoder(), image_shape=image_shape, canvas_size=canvas_size)
    assert codec.describe()["canvas"] == [3, *canvas]
    assert codec.image_shape == (image_shape or (3, *canvas))
    assert codec.latent_shape == (4, canvas[0] // 4, canvas[1] // 4)
    images = np.zeros((1, *codec.image_shape), np.uint8)
    latents = codec.encode(images)
    assert latents.shape == (1, *codec.latent_shape)
    assert codec.decode(latents, [0]).shape == images.shape


@torch.inference_mode()
def test_autoencoder_without_posterior() -> None:
    vae = make_tiny_autoencoder()
    codec = AutoencoderCodec(vae, image_shape=(3, 32, 32))
    latents = codec.encode(IMAGES)
    np.testing.assert_allclose(latents, vae.encode(_values(IMAGES)).latents.numpy(), atol=1e-6)
    found = codec.decode(latents, LABELS)
    expected = vae.decode(torch.from_numpy(latents)).sample.clamp(-1, 1)
    assert np.abs(found - ((expected.numpy() + 1) * 127.5)).max() <= 1
    assert AutoencoderCodec(vae, image_shape=(3, 30, 33)).latent_shape == (4, 8, 9)
    with pytest.raises(ValueError, match="image_shape=None; it or canvas_size must be given"):
        AutoencoderCodec(vae)
    with pytest.raises(ValueError, match="sample=True; AutoencoderTiny has no posterior"):
        AutoencoderCodec(vae, image_shape=(3, 32, 32), sample=True)
    with pytest.raises(ValueError, match="tiling=True; AutoencoderTiny must run without tiles"):
        AutoencoderCodec(vae, image_shape=(3, 32, 32), tiling=True)


def test_grey_autoencoder() -> None:
    codec = AutoencoderCodec(make_autoencoder(channels=1))
    assert codec.image_shape == (1, 32, 32)
    assert codec.decode(codec.encode(IMAGES[:, :1]), LABELS).shape == (5, 1, 32, 32)
    with pytest.raises(ValueError, match="but the model takes images of one channel"):
        AutoencoderCodec(make_autoencoder(channels=1), image_shape=(3, 32, 32))


def test_tiles_are_smaller_than_the_canvas() -> None:
    codec = AutoencoderCodec(make_autoencoder(sample_size=64), tiling=True)
    assert codec.describe()["tile"] == 8
    shapes = []
    codec._vae.encoder.register_forward_hook(lambda _, args, __: shapes.append(args[0].shape))
    codec._vae.decoder.register_forward_hook(lambda _, args, __: shapes.append(args[0].shape))
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 64, 64), np.uint8)
    latents = codec.encode(images)
    assert latents.shape == (2, 4, 16, 16)
    decoded = codec.decode(latents, [0, 0])
    assert decoded.shape == images.shape
    assert {tuple(shape[:1]) for shape in shapes} == {(1,)}
    assert max(shape[2] for shape in shapes if shape[1] == 3) == 32
    assert max(shape[2] for shape in shapes if shape[1] == 4) == 8
    whole = AutoencoderCodec(make_autoencoder(sample_size=64))
    assert whole.describe() != codec.describe()
    # A tile does not see its neighbours, and a group norm not the rest of the image.
    assert np.corrcoef(whole.encode(images).ravel(), latents.ravel())[0, 1] > 0.8


def test_tiles_where_an_image_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    need = CODEC.bytes_per_image
    assert need == 32 * 32 * 4 * 8 * 4
    for free, tile in ((need, None), (need - 1, 4)):
        monkeypatch.setattr(module, "free_bytes", lambda _, free=free: free)
        codec = AutoencoderCodec(make_autoencoder())
        assert codec.describe()["tile"] == tile
        assert codec.batch_size == 1
        assert AutoencoderCodec(make_autoencoder(), tiling=False).describe()["tile"] is None
    monkeypatch.setattr(module, "free_bytes", lambda _: 17 * need)
    assert AutoencoderCodec(make_autoencoder()).batch_size == 8


def test_tiling_of_an_earlier_codec_does_not_stay() -> None:
    vae = make_autoencoder()
    AutoencoderCodec(vae, tiling=True)
    assert_same_array_bits(AutoencoderCodec(vae).encode(IMAGES), LATENTS, "latents")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, tiny_dit: Path) -> None:
    codec = AutoencoderCodec.from_pretrained(tiny_dit, device="cpu", dtype=dtype)
    assert codec.dtype == getattr(torch, dtype)
    latents = codec.encode(IMAGES)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, LATENTS, atol=0.02)
    difference = codec.decode(LATENTS, LABELS).astype(int) - CODEC.decode(LATENTS, LABELS)
    assert np.abs(difference).max() <= 16
    assert np.abs(difference).mean() < 1
    assert codec.describe()["vae"]["dtype"] == dtype


def test_from_pretrained(tiny_dit: Path, tmp_path: Path) -> None:
    for folder in (tiny_dit, tiny_dit / "vae", str(tiny_dit)):
        codec = AutoencoderCodec.from_pretrained(folder, device="cpu", batch_size=3)
        assert codec.batch_size == 3
        assert codec.describe() == CODEC.describe()
        np.testing.assert_allclose(codec.encode(IMAGES), LATENTS, atol=1e-6)
    make_tiny_autoencoder().save_pretrained(tmp_path)
    codec = AutoencoderCodec.from_pretrained(tmp_path, image_shape=(1, 8, 8), device="cpu")
    assert codec.describe()["vae"]["class"] == "AutoencoderTiny"


def test_description_tells_codecs_apart() -> None:
    codecs = [
        CODEC,
        AutoencoderCodec(make_autoencoder(), sample=True),
        AutoencoderCodec(make_autoencoder(), image_shape=(1, 32, 32)),
        AutoencoderCodec(make_autoencoder(), canvas_size=16),
        AutoencoderCodec(make_autoencoder(), tiling=True),
        AutoencoderCodec(make_autoencoder(scaling_factor=1.0)),
    ]
    assert len({str(codec.describe()) for codec in codecs}) == len(codecs)
    again = AutoencoderCodec(make_autoencoder(), batch_size=2)
    assert again.describe() == CODEC.describe()
    assert CODEC.decoding() == {}
    CODEC.check_classes(("a",))


def test_values_that_are_not_finite() -> None:
    vae = make_autoencoder()
    codec = AutoencoderCodec(vae, batch_size=2)
    encode, decode = vae.encode, vae.decode
    calls = []

    def broken_encode(values: Any) -> Any:
        found = encode(values)
        calls.append(0)
        if len(calls) == 2:
            found.latent_dist.mean[1, 0, 0, 0] = float("nan")
        return found

    vae.encode = broken_encode
    with pytest.raises(ValueError, match="the latent of row 3 has NaN or infinity in float32$"):
        codec.encode(IMAGES)

    def broken_decode(values: Any) -> Any:
        found = decode(values)
        found.sample[0, 0, 0, 0] = float("inf")
        return found

    vae.decode = broken_decode
    with pytest.raises(ValueError, match="the image of row 0 has NaN or infinity in float32$"):
        codec.decode(LATENTS, LABELS)
    half = AutoencoderCodec(vae.to(torch.bfloat16))
    with pytest.raises(ValueError, match="infinity in bfloat16; try dtype='float32'"):
        half.decode(LATENTS, LABELS)


def test_bad_arguments(tmp_path: Path, tiny_dit: Path) -> None:
    with pytest.raises(
        TypeError, match="vae is a DiTTransformer2DModel; it must be an Autoencoder"
    ):
        AutoencoderCodec(make_transformer())
    with pytest.raises(
        ValueError, match="vae takes 3 channels and gives 1; both must be 1 or both"
    ):
        AutoencoderCodec(make_autoencoder(out_channels=1))
    with pytest.raises(ValueError, match="canvas_size=30; height and width must be multiples of 4"):
        AutoencoderCodec(make_autoencoder(), canvas_size=30)
    with pytest.raises(ValueError, match=r"image_shape=\(4, 4\)"):
        AutoencoderCodec(make_autoencoder(), image_shape=(4, 4))
    with pytest.raises(ValueError, match="batch_size=0"):
        AutoencoderCodec(make_autoencoder(), batch_size=0)
    with pytest.raises(ValueError, match="dtype='half'; it must be one of"):
        AutoencoderCodec.from_pretrained(tiny_dit, dtype="half")
    with pytest.raises(ValueError, match="device='gpu' cannot be used"):
        AutoencoderCodec.from_pretrained(tiny_dit, device="gpu")
    with pytest.raises(FileNotFoundError, match="has no config.json that could be read"):
        AutoencoderCodec.from_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="transformer' holds a DiTTransformer2DModel; it must be o"
    ):
        AutoencoderCodec.from_pretrained(tiny_dit / "transformer")


def test_bad_arguments_of_calls() -> None:
    with pytest.raises(ValueError, match=r"images has shape \(5, 3, 32, 31\)"):
        CODEC.encode(IMAGES[..., 1:])
    with pytest.raises(ValueError, match=r"ids\[0\]=-1"):
        CODEC.encode(IMAGES, ids=[-1, 0, 0, 0, 0])
    with pytest.raises(TypeError, match="seed=1.5"):
        CODEC.encode(IMAGES, seed=1.5)
    bad = LATENTS.copy()
    bad[4, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="latents holds NaN or infinity in row 4"):
        CODEC.decode(bad, LABELS)
    for arguments in ({"ids": [1]}, {"seed": -1}, {"strength": 0.5}, {"steps": 3}, {"guidance": 1}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            CODEC.decode(LATENTS, LABELS, **arguments)
    with pytest.raises(ValueError, match="labels has shape"):
        CODEC.decode(LATENTS, LABELS[1:])


def test_gradients_are_not_recorded() -> None:
    vae = make_autoencoder()
    codec = AutoencoderCodec(vae.train())
    assert not vae.training
    seen = []
    vae.encoder.register_forward_hook(lambda *_: seen.append(torch.is_inference_mode_enabled()))
    vae.decoder.register_forward_hook(lambda *_: seen.append(torch.is_inference_mode_enabled()))
    codec.decode(codec.encode(IMAGES), LABELS)
    assert seen == [True, True]
