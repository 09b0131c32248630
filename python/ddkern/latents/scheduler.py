# SPDX-License-Identifier: Apache-2.0
"""Samplers of diffusers: which ones can be used, and making them. Importing this needs no torch."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

from ddkern.errors import UnsupportedError
from ddkern.latents.checkpoint import Checkpoint
from ddkern.optional import import_optional

__all__ = [
    "as_new",
    "check_scheduler",
    "load_scheduler",
    "takes_generators",
    "without_array_warning",
]

# Samplers draw from the generators that are given to their steps. The steps of these take none, and
# draw nothing.
_DRAW_NOTHING = (
    "DEISMultistepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)

# Those of flow matching lack the first, those that add noise without shrinking images the second.
_NEEDED = ("add_noise", "alphas_cumprod", "order", "scale_model_input", "set_timesteps", "step")

_CHOICE = "choose another, such as 'DDIMScheduler' or 'DPMSolverMultistepScheduler'"


def check_scheduler(scheduler: Any) -> None:
    """Raise an error unless :func:`ddkern.latents.denoise.denoise` can run this sampler.

    Raises
    ------
    TypeError
        If it is no scheduler of diffusers.
    UnsupportedError
        If it is not for models that were trained on DDPM's noise, draws noise that depends on the
        other latents of a call, or cannot begin in the middle.
    """
    name = type(scheduler).__name__
    if isinstance(scheduler, type) or not hasattr(scheduler, "from_config"):
        raise TypeError(f"scheduler={scheduler!r}; it must be a scheduler of diffusers")
    for needed in _NEEDED:
        if not hasattr(scheduler, needed):
            raise UnsupportedError(
                f"{name} has no {needed}: it is not for latents to which noise is added as in "
                f"DDPM; {_CHOICE}"
            )
    if not takes_generators(scheduler) and name not in _DRAW_NOTHING:
        raise UnsupportedError(
            f"{name} may draw noise that cannot be made to depend on the image alone, for its step "
            f"takes no generator; {_CHOICE}"
        )
    if name == "PNDMScheduler" and not scheduler.config.skip_prk_steps:
        raise UnsupportedError(
            f"{name} with skip_prk_steps=False takes its Runge-Kutta steps from pure noise alone; "
            f"{_CHOICE}"
        )


def takes_generators(scheduler: Any) -> bool:
    """Whether its steps draw from generators that are given."""
    return "generator" in inspect.signature(scheduler.step).parameters


def as_new(scheduler: Any) -> Any:
    """Another scheduler of the same class and configuration, which has not run yet."""
    with without_array_warning():
        return type(scheduler).from_config(scheduler.config)


def load_scheduler(checkpoint: Checkpoint, name: str | None) -> Any:
    """The sampler of a checkpoint, or another one with its configuration.

    Parameters
    ----------
    checkpoint : Checkpoint
    name : str or None
        A class of diffusers, such as ``"DPMSolverMultistepScheduler"``; None is the checkpoint's.
        A PNDMScheduler goes without Runge-Kutta steps.

    Raises
    ------
    FileNotFoundError
        If the checkpoint has no scheduler.
    TypeError, ValueError
        If ``name`` is no scheduler that can take its configuration.
    UnsupportedError
        If diffusers does not have the scheduler of the checkpoint.
    """
    diffusers = import_optional("diffusers", "a diffusion model", "diffusion")
    config = checkpoint.read_json("scheduler/scheduler_config.json")
    if config is None:
        raise checkpoint.missing("scheduler/scheduler_config.json")
    own_name = config.get("_class_name")
    if not isinstance(own_name, str) or not hasattr(diffusers, own_name):
        raise UnsupportedError(
            f"{checkpoint.name!r} was saved with the scheduler {own_name}, which this version of "
            f"diffusers ({diffusers.__version__}) does not have"
        )
    with without_array_warning():
        own = checkpoint.load(getattr(diffusers, own_name), "scheduler")
        if name is None:
            return own
        if not isinstance(name, str):
            raise TypeError(f"scheduler is a {type(name).__name__}; it must be the name of a class")
        known = {kind.__name__: kind for kind in (type(own), *own.compatibles)}
        if name not in known:
            raise ValueError(
                f"scheduler={name!r}; in the place of {own_name} it must be one of "
                f"{', '.join(sorted(known))}"
            )
        changes = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
        return known[name].from_config(own.config, **changes)


@contextlib.contextmanager
def without_array_warning() -> Iterator[None]:
    """Silence what numpy 2 says when a scheduler gives it a tensor in the place of an array."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array(_wrap)?__ ", DeprecationWarning)
        yield
