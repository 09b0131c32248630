# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of diffusers that are small enough for a test: untrained, the same every time."""

from __future__ import annotations

import json
import string
import tempfile
from pathlib import Path
from typing import Any

import torch

# Latents have a quarter of an image's side, and are this many times smaller than their posteriors.
FACTOR = 4
SCALING = 0.18215

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def make_autoencoder(channels: int = 3, size: int = 32, **config: Any) -> Any:
    """Return an AutoencoderKL of three blocks."""
    import diffusers

    blocks = 3
    options = {
        "in_channels": channels,
        "out_channels": channels,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
        "block_out_channels": (8, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": size,
        "scaling_factor": SCALING,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return diffusers.AutoencoderKL(**options | config).eval()


def make_tiny_autoencoder(channels: int = 3) -> Any:
    """Return an AutoencoderTiny of three blocks."""
    import diffusers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return diffusers.AutoencoderTiny(
            in_channels=channels,
            out_channels=channels,
            latent_channels=4,
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
        ).eval()


def make_transformer(n_classes: int = 10, size: int = 32, **config: Any) -> Any:
    """Return a DiTTransformer2DModel of two layers that predicts a variance as well."""
    import diffusers

    options = {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "sample_size": size // FACTOR,
        "patch_size": 2,
        "num_embeds_ada_norm": n_classes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return diffusers.DiTTransformer2DModel(**options | config).eval()


def make_unet(size: int = 32, **config: Any) -> Any:
    """Return a UNet2DConditionModel of two blocks."""
    import diffusers

    options = {
        "sample_size": size // FACTOR,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return diffusers.UNet2DConditionModel(**options | config).eval()


def save_tiny_dit(folder: Path, n_classes: int = 10, channels: int = 3, size: int = 32) -> Path:
    """Write a DiTPipeline with an AutoencoderKL and a DDIMScheduler, and return its folder."""
    import diffusers

    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="linear", clip_sample=False
    )
    diffusers.DiTPipeline(
        transformer=make_transformer(n_classes, size),
        vae=make_autoencoder(channels, size),
        scheduler=scheduler,
    ).save_pretrained(folder)
    return folder


def save_tiny_stable_diffusion(folder: Path) -> Path:
    """Write a StableDiffusionPipeline for images of 32 x 32, and return its folder."""
    import diffusers

    text_encoder, tokenizer = make_text_encoder()
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    diffusers.StableDiffusionPipeline(
        vae=make_autoencoder(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=make_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def make_text_encoder() -> tuple[Any, Any]:
    """Return a CLIPTextModel of one layer and a CLIPTokenizer that spells."""
    import transformers

    letters = [*string.ascii_lowercase, *string.digits, ",", ".", "-"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), _BEGIN, _END]
    vocabulary = {word: number for number, word in enumerate(words)}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=16,
        bos_token_id=vocabulary[_BEGIN],
        eos_token_id=vocabulary[_END],
        pad_token_id=vocabulary[_END],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return transformers.CLIPTextModel(config).eval(), tokenizer
