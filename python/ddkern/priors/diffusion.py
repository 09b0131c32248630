# SPDX-License-Identifier: Apache-2.0
"""A small class-conditional diffusion transformer on latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddkern.priors.recipe import DiffusionRecipe
from ddkern.priors.steps import Trained, batch_rows, run_steps
from ddkern.progress import ProgressArgument
from ddkern.training import Precision
from ddkern.training.precision import autocast

__all__ = ["build_scheduler", "build_transformer", "train_transformer"]

_PURPOSE = 2  # of random numbers; those of the autoencoder have another one
_NOISE_STEPS = 1000
_SNR_LIMIT = 5.0


def build_transformer(
    recipe: DiffusionRecipe, latent_shape: tuple[int, ...], n_classes: int, seed: int
) -> Any:
    """An untrained ``diffusers.DiTTransformer2DModel``; class ``n_classes`` is none of them.

    The global random state of torch is as before.
    """
    from diffusers import DiTTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed & (2**63 - 1))
        model = DiTTransformer2DModel(
            num_attention_heads=recipe.heads,
            attention_head_dim=recipe.head_size,
            in_channels=latent_shape[0],
            out_channels=latent_shape[0],
            num_layers=recipe.layers,
            sample_size=latent_shape[1],
            patch_size=recipe.patch_size,
            num_embeds_ada_norm=n_classes,
        )
    # In training mode its label embedding would hide classes by random numbers of its own.
    return model.eval()


def build_scheduler(recipe: DiffusionRecipe) -> Any:
    """The noise that the transformer is trained on, with DPM-Solver++ to take it away."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        num_train_timesteps=_NOISE_STEPS,
        beta_schedule=recipe.beta_schedule,
        prediction_type="epsilon",
    )


def train_transformer(
    model: Any,
    latents: Tensor,
    labels: Tensor,
    recipe: DiffusionRecipe,
    *,
    n_classes: int,
    seed: int,
    precision: Precision,
    checkpoint: Path,
    progress: ProgressArgument,
) -> Trained:
    """Fit a transformer to predict the noise in latents.

    Parameters
    ----------
    model : DiTTransformer2DModel
    latents : Tensor of float32, shape (n, channels, height, width)
        Scaled, on the device of the model.
    labels : Tensor of int64, shape (n,)
    recipe : DiffusionRecipe
    n_classes : int
    seed : int
    precision : {"float32", "bfloat16"}
    checkpoint : Path
    progress : bool or callable or None
    """
    device = latents.device
    alphas = build_scheduler(recipe).alphas_cumprod.to(device)
    snr = alphas / (1 - alphas)
    weights = snr.clamp(max=_SNR_LIMIT) / snr if recipe.loss == "min_snr" else torch.ones_like(snr)

    def loss_of(network: nn.Module, step: int) -> Tensor:
        rows = batch_rows(len(latents), recipe.batch_size, seed, step)
        draw = np.random.Generator(np.random.Philox(key=[seed, (step << 8) + _PURPOSE]))
        hidden = torch.from_numpy(draw.random(len(rows)) < recipe.class_dropout).to(device)
        times = torch.from_numpy(draw.integers(0, _NOISE_STEPS, len(rows))).to(device)
        shape = (len(rows), *latents.shape[1:])
        noise = torch.from_numpy(draw.standard_normal(shape, np.float32)).to(device)
        chosen = torch.from_numpy(rows).to(device)
        signal = alphas[times].sqrt()[:, None, None, None]
        noisy = signal * latents[chosen] + (1 - signal.square()).sqrt() * noise
        shown = labels[chosen].masked_fill(hidden, n_classes)
        with autocast(precision, device):
            found = network(noisy, timestep=times, class_labels=shown).sample
        error = (found.float() - noise).square().flatten(1).mean(1)
        loss: Tensor = (weights[times] * error).mean()
        return loss

    return run_steps(
        model,
        loss_of,
        steps=recipe.steps,
        lr=recipe.lr,
        ema=recipe.ema,
        checkpoint=checkpoint,
        title="fit diffusion model",
        progress=progress,
    )
