# SPDX-License-Identifier: Apache-2.0
"""Which samplers can be used, and how they are made."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from ddkern.errors import UnsupportedError  # noqa: E402
from ddkern.latents.checkpoint import find_checkpoint  # noqa: E402
from ddkern.latents.scheduler import (  # noqa: E402
    as_new,
    check_scheduler,
    load_scheduler,
    takes_generators,
    without_array_warning,
)


class DrawingScheduler(diffusers.DDIMScheduler):
    """Draws from who knows where."""

    def step(self, model_output: Any, timestep: Any, sample: Any) -> Any:
        return super().step(model_output, timestep, sample)


def _make(name: str, **options: Any) -> Any:
    with without_array_warning():
        return getattr(diffusers, name)(**options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DDIMScheduler", {}),
        ("DDPMScheduler", {}),
        ("DEISMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {}),
        ("HeunDiscreteScheduler", {}),
        ("LMSDiscreteScheduler", {}),
        ("PNDMScheduler", {"skip_prk_steps": True}),
        ("UniPCMultistepScheduler", {}),
    ],
)
def test_these_can_be_used(name: str, options: dict[str, Any]) -> None:
    check_scheduler(_make(name, **options))


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (
            diffusers.FlowMatchEulerDiscreteScheduler(),
            "FlowMatchEulerDiscreteScheduler has no add_",
        ),
        (
            diffusers.EDMEulerScheduler(),
            "EDMEulerScheduler has no alphas_cumprod: it is not for la",
        ),
        (
            DrawingScheduler(),
            "DrawingScheduler may draw noise that cannot be made to depend on the",
        ),
        (
            diffusers.PNDMScheduler(),
            "PNDMScheduler with skip_prk_steps=False takes its Runge-Kutta",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_these_cannot(scheduler: Any, message: str) -> None:
    with pytest.raises(
        UnsupportedError, match=f"{message}.*choose another, such as 'DDIMScheduler"
    ):
        check_scheduler(scheduler)


@pytest.mark.parametrize("value", ["DDIMScheduler", diffusers.DDIMScheduler, None])
def test_something_else(value: Any) -> None:
    with pytest.raises(TypeError, match="it must be a scheduler of diffusers"):
        check_scheduler(value)


def test_generators() -> None:
    assert takes_generators(diffusers.DDIMScheduler())
    assert not takes_generators(diffusers.PNDMScheduler())


def test_new_scheduler_has_not_run() -> None:
    scheduler = _make("DPMSolverMultistepScheduler", beta_end=0.013, solver_order=3)
    with without_array_warning():
        scheduler.set_timesteps(7)
    new = as_new(scheduler)
    assert new is not scheduler
    assert new.num_inference_steps is None
    assert dict(new.config) == dict(scheduler.config)


def test_scheduler_of_a_checkpoint(tiny_dit: Path) -> None:
    scheduler = load_scheduler(find_checkpoint(tiny_dit), None)
    assert type(scheduler) is diffusers.DDIMScheduler
    assert scheduler.config.clip_sample is False


@pytest.mark.parametrize(
    "name", ["DPMSolverMultistepScheduler", "HeunDiscreteScheduler", "PNDMScheduler"]
)
def test_another_scheduler_has_the_noise_of_the_checkpoint(name: str, tiny_dit: Path) -> None:
    own = load_scheduler(find_checkpoint(tiny_dit), None)
    other = load_scheduler(find_checkpoint(tiny_dit), name)
    assert type(other).__name__ == name
    assert torch.allclose(other.alphas_cumprod, own.alphas_cumprod)
    check_scheduler(other)


def test_scheduler_of_another_kind(tiny_dit: Path) -> None:
    checkpoint = find_checkpoint(tiny_dit)
    message = r"scheduler='FlowMatchEulerDiscreteScheduler'; in the place of DDIMScheduler it must"
    with pytest.raises(ValueError, match=rf"{message} be one of .*DDIMScheduler, .*EulerDiscrete"):
        load_scheduler(checkpoint, "FlowMatchEulerDiscreteScheduler")
    with pytest.raises(ValueError, match="scheduler='ddim'; in the place of DDIMScheduler"):
        load_scheduler(checkpoint, "ddim")
    with pytest.raises(
        TypeError, match="scheduler is a DDIMScheduler; it must be the name of a cl"
    ):
        load_scheduler(checkpoint, diffusers.DDIMScheduler())


def test_checkpoint_without_a_scheduler_that_is_known(tiny_dit: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_dit / "scheduler", tmp_path / "scheduler")
    file = tmp_path / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"_class_name": "NextScheduler"}), encoding="utf-8")
    with pytest.raises(UnsupportedError, match="was saved with the scheduler NextScheduler, which"):
        load_scheduler(find_checkpoint(tmp_path), None)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="has no scheduler/scheduler_config.json"):
        load_scheduler(find_checkpoint(tmp_path), None)


def test_only_the_warnings_about_arrays_are_silenced() -> None:
    with without_array_warning():
        warnings.warn("__array__ implementation doesn't accept", DeprecationWarning, stacklevel=1)
        warnings.warn("__array_wrap__ must accept context", DeprecationWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="other"):
            warnings.warn("other", UserWarning, stacklevel=1)
        with pytest.raises(DeprecationWarning, match="old"):
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    with pytest.raises(DeprecationWarning, match="__array__"):
        warnings.warn("__array__ implementation", DeprecationWarning, stacklevel=1)
