# SPDX-License-Identifier: Apache-2.0
"""From latents over noise back to latents, with any sampler of diffusers that can be seeded.

Importing this module needs torch.

References
----------
C. Meng et al., "SDEdit: guided image synthesis and editing with stochastic differential equations",
ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from ddkern.latents.scheduler import as_new, takes_generators, without_array_warning

__all__ = ["Predict", "denoise", "timesteps_of"]

Predict: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""What a network makes of latents, shape (n, ...), that are scaled for it, and of a timestep, a
scalar on their device: noise, velocity or sample, as the scheduler's ``prediction_type`` says."""


def timesteps_of(scheduler: Any, steps: int, strength: float, device: torch.device) -> torch.Tensor:
    """Prepare a scheduler for the last share of its steps.

    Parameters
    ----------
    scheduler : scheduler of diffusers
        Is set to ``steps`` steps, and to begin at the first one that is run.
    steps : int
        From pure noise to an image.
    strength : float
        ``int(steps * strength)`` of them are run.
    device : torch.device

    Returns
    -------
    Tensor
        Timesteps, in the order they are run in. Samplers of second order have two a step.
    """
    with without_array_warning():
        scheduler.set_timesteps(steps, device=device)
    timesteps: torch.Tensor = scheduler.timesteps
    run = min(int(steps * strength), steps)
    if run == 0:
        return timesteps[:0]
    first = (steps - run) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return timesteps[first:]


def denoise(
    predict: Predict,
    scheduler: Any,
    latents: torch.Tensor,
    noise: torch.Tensor,
    *,
    steps: int,
    strength: float,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Add noise to latents and remove it again.

    The scheduler that is given stays as it is: a new one with its configuration does the work. Some
    do not come back to the latents that a perfect prediction leads to when they begin in the middle
    (PNDM and LMS, which count on earlier steps) or in float32 (DEIS); DDIM, DPM-Solver, UniPC,
    Euler and Heun do.

    Parameters
    ----------
    predict : callable
        See :data:`Predict`.
    scheduler : scheduler of diffusers
        One that :func:`ddkern.latents.scheduler.check_scheduler` lets pass.
    latents : Tensor of float32, shape (n, ...)
    noise : Tensor of float32, shape (n, ...)
        Standard normal, what is added.
    steps, strength
        See :func:`timesteps_of`. Latents come back as they are where no step is run.
    generators : sequence of n torch.Generator
        What samplers that draw at every step draw for each latent.

    Returns
    -------
    Tensor of float32, shape (n, ...)
    """
    sampler = as_new(scheduler)
    timesteps = timesteps_of(sampler, steps, strength, latents.device)
    if not len(timesteps) or not len(latents):
        return latents
    options = {"generator": list(generators)} if takes_generators(sampler) else {}
    with without_array_warning():
        moving: torch.Tensor = sampler.add_noise(latents, noise, timesteps[:1].repeat(len(latents)))
        for timestep in timesteps:
            prediction = predict(sampler.scale_model_input(moving, timestep), timestep)
            moving = sampler.step(prediction, timestep, moving, **options, return_dict=False)[0]
    return moving
