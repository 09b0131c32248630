# SPDX-License-Identifier: Apache-2.0
"""A small KL autoencoder, fitted to one data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddkern.priors.recipe import AutoencoderRecipe
from ddkern.priors.steps import Trained, batch_rows, run_steps
from ddkern.progress import ProgressArgument
from ddkern.training import Precision
from ddkern.training.precision import autocast

__all__ = ["build_autoencoder", "encode_means", "set_scale", "train_autoencoder"]

_PURPOSE = 1  # of random numbers; those of the diffusion model have another one


def build_autoencoder(
    recipe: AutoencoderRecipe, image_shape: tuple[int, int, int], seed: int
) -> Any:
    """An untrained ``diffusers.AutoencoderKL`` for images of this shape.

    The global random state of torch is as before.
    """
    from diffusers import AutoencoderKL

    blocks = len(recipe.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed & (2**63 - 1))
        return AutoencoderKL(
            in_channels=image_shape[0],
            out_channels=image_shape[0],
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            block_out_channels=recipe.channels,
            layers_per_block=recipe.layers_per_block,
            latent_channels=recipe.latent_channels,
            norm_num_groups=recipe.norm_groups,
            sample_size=image_shape[1],
            scaling_factor=1.0,
        ).eval()


def train_autoencoder(
    model: Any,
    images: Tensor,
    recipe: AutoencoderRecipe,
    *,
    seed: int,
    precision: Precision,
    checkpoint: Path,
    progress: ProgressArgument,
) -> Trained:
    """Fit an autoencoder to images.

    Parameters
    ----------
    model : AutoencoderKL
    images : Tensor of uint8, shape (n, channels, height, width)
        On the device of the model.
    recipe : AutoencoderRecipe
    seed : int
    precision : {"float32", "bfloat16"}
    checkpoint : Path
    progress : bool or callable or None
    """
    device = images.device

    def loss_of(network: nn.Module, step: int) -> Tensor:
        rows = torch.from_numpy(batch_rows(len(images), recipe.batch_size, seed, step)).to(device)
        target = as_canvas(images[rows])
        moments: Any = network
        with autocast(precision, device):
            posterior = moments.encode(target).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = np.random.Generator(np.random.Philox(key=[seed, (step << 8) + _PURPOSE]))
        drawn = noise.standard_normal(tuple(mean.shape), np.float32)
        latents = mean + torch.exp(0.5 * logvar) * torch.from_numpy(drawn).to(device)
        with autocast(precision, device):
            decoded = moments.decode(latents).sample
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1).mean()
        error: Tensor = (decoded.float() - target).abs().mean()
        loss: Tensor = error + recipe.kl_weight * divergence
        return loss

    return run_steps(
        model,
        loss_of,
        steps=recipe.steps,
        lr=recipe.lr,
        ema=0.99,
        checkpoint=checkpoint,
        title="fit autoencoder",
        progress=progress,
    )


def as_canvas(pixels: Tensor) -> Tensor:
    """Pixels as the autoencoder takes them: float32 in [-1, 1], channels last in memory."""
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def encode_means(model: Any, images: Tensor, batch_size: int = 256) -> Tensor:
    """Latent means of images, not scaled: float32 on the device of the images."""
    parts = [
        model.encode(as_canvas(images[start : start + batch_size])).latent_dist.mode().float()
        for start in range(0, len(images), batch_size)
    ]
    return torch.cat(parts).clone()


def set_scale(model: Any, latents: Tensor) -> None:
    """Let the configuration say what makes latents of mean 0 and standard deviation 1."""
    model.register_to_config(
        shift_factor=float(latents.mean()), scaling_factor=1 / float(latents.std())
    )
