# SPDX-License-Identifier: Apache-2.0
"""The loop is that of the stock pipeline, and a perfect denoiser comes back to where it began."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from ddkern.latents.denoise import denoise, timesteps_of  # noqa: E402
from ddkern.latents.scheduler import as_new, check_scheduler, without_array_warning  # noqa: E402

CPU = torch.device("cpu")
N = 3
GENERATOR = torch.Generator().manual_seed(0)
LATENTS = torch.randn(N, 4, 4, 4, generator=GENERATOR)
NOISE = torch.randn(N, 4, 4, 4, generator=GENERATOR)
STRENGTHS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0)

DETERMINISTIC = ("DDIM", "DPMSolverMultistep", "EulerDiscrete", "HeunDiscrete", "UniPCMultistep")
DRAWING = ("DDPM", "EulerAncestralDiscrete", "SASolver", "LCM")


def _make(name: str, **options: Any) -> Any:
    if name in ("DDIM", "DDPM", "LCM"):
        options["clip_sample"] = False
    with without_array_warning():
        return getattr(diffusers, f"{name}Scheduler")(
            beta_start=1e-4,
            beta_end=0.02,
            beta_schedule="linear",
            timestep_spacing="leading",
            **options,
        )


def _generators(seeds: tuple[int, ...] = (0, 1, 2)) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _oracle(latents: torch.Tensor, prediction: str = "epsilon") -> Any:
    """Return what a network predicts that knows the latents under the noise, in float64."""
    cumulative = _make("DDIM").alphas_cumprod.double().numpy()
    sigmas = np.sqrt((1 - cumulative) / cumulative)

    def predict(moving: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        sigma = np.interp(float(timestep), np.arange(1000), sigmas)
        alpha = 1 / np.sqrt(1 + sigma**2)
        wide, clean = moving.double(), latents.double()
        noise = (wide - alpha * clean) / (sigma * alpha)
        if prediction == "v_prediction":
            return (alpha * noise - sigma * alpha * clean).float()
        return (clean if prediction == "sample" else noise).float()

    return predict


def _network(moving: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Return a smooth function of each latent alone."""
    return torch.sin(3 * moving + 0.001 * timestep) + 0.1 * moving.flip(1)


@pytest.mark.parametrize("strength", [0.5, 0.7])
@pytest.mark.parametrize("name", ["DDIM", "DPMSolverMultistep", "PNDM", "EulerDiscrete"])
def test_loop_has_the_bits_of_the_stock_pipeline(
    name: str, strength: float, tiny_stable_diffusion: Path
) -> None:
    pipeline = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
        tiny_stable_diffusion, local_files_only=True, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    with without_array_warning():
        kind = getattr(diffusers, f"{name}Scheduler")
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    latents = 0.8 * torch.randn(N, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    prompts, negative = ["a cat", "a dog", "a cat"], ["cartoon"] * N
    with without_array_warning():
        expected = pipeline(
            prompt=prompts,
            negative_prompt=negative,
            image=latents,
            strength=strength,
            guidance_scale=8.0,
            num_inference_steps=20,
            generator=torch.Generator().manual_seed(5),
            output_type="latent",
        ).images
    embedded = pipeline.encode_prompt(prompts, "cpu", 1, True, negative_prompt=negative)
    context = torch.cat(embedded[::-1])

    def predict(moving: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        twice = torch.cat([moving, moving])
        without, within = pipeline.unet(twice, timestep, context).sample.chunk(2)
        return without + 8.0 * (within - without)

    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        found = denoise(
            predict,
            pipeline.scheduler,
            latents,
            noise,
            steps=20,
            strength=strength,
            generators=_generators(),
        )
    assert torch.equal(found, expected)
    assert not torch.allclose(found, latents, atol=0.1)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_perfect_denoiser_comes_back(name: str, strength: float) -> None:
    found = denoise(
        _oracle(LATENTS),
        _make(name),
        LATENTS,
        NOISE,
        steps=20,
        strength=strength,
        generators=_generators(),
    )
    assert (found - LATENTS).abs().max() < 1e-6


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("name", ["DDIM", "DPMSolverMultistep", "EulerDiscrete"])
def test_other_predictions(name: str, prediction: str) -> None:
    found = denoise(
        _oracle(LATENTS, prediction),
        _make(name, prediction_type=prediction),
        LATENTS,
        NOISE,
        steps=20,
        strength=0.7,
        generators=_generators(),
    )
    assert (found - LATENTS).abs().max() < 2e-6


def test_noise_is_added_before_it_is_removed() -> None:
    seen = []

    def predict(moving: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        seen.append((moving.clone(), int(timestep)))
        return torch.zeros_like(moving)

    scheduler = _make("DDIM")
    options: dict[str, Any] = {"steps": 20, "strength": 0.7, "generators": _generators()}
    denoise(predict, scheduler, LATENTS, NOISE, **options)
    first, timestep = seen[0]
    assert timestep == 650
    assert len(seen) == 14
    alpha = scheduler.alphas_cumprod[650]
    expected = alpha.sqrt() * LATENTS + (1 - alpha).sqrt() * NOISE
    assert torch.allclose(first, expected, atol=1e-6)


@pytest.mark.parametrize("name", [*DETERMINISTIC, *DRAWING, "PNDM"])
def test_result_is_a_function_of_each_latent_alone(name: str) -> None:
    options = {"skip_prk_steps": True} if name == "PNDM" else {}
    scheduler = _make(name, **options)
    check_scheduler(scheduler)

    def run(rows: list[int]) -> torch.Tensor:
        return denoise(
            _network,
            scheduler,
            LATENTS[rows],
            NOISE[rows],
            steps=10,
            strength=0.7,
            generators=_generators(tuple(rows)),
        )

    together = run([0, 1, 2])
    assert together.isfinite().all()
    assert torch.equal(run([2, 0, 1]), together[[2, 0, 1]])
    assert torch.allclose(torch.cat([run([0]), run([1, 2])]), together, atol=1e-5)


@pytest.mark.parametrize("name", ["EulerAncestralDiscrete", "DDPM", "LCM"])
def test_samplers_draw_from_the_generators(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (
        denoise(
            _network,
            _make(name),
            LATENTS,
            NOISE,
            steps=10,
            strength=0.7,
            generators=_generators(seeds),
        )
        for seeds in ((0, 1, 2), (0, 1, 2), (0, 1, 3))
    )
    assert torch.equal(first, again)
    assert torch.equal(first[:2], other[:2])
    assert not torch.equal(first[2], other[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_stochastic_dpm_solver_draws_as_well() -> None:
    scheduler = _make("DPMSolverMultistep", algorithm_type="sde-dpmsolver++")
    options: dict[str, Any] = {"steps": 10, "strength": 0.7}
    first, other = (
        denoise(_network, scheduler, LATENTS, NOISE, **options, generators=_generators(seeds))
        for seeds in ((0, 1, 2), (3, 1, 2))
    )
    assert torch.equal(first[1:], other[1:])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name", [*DETERMINISTIC, *DRAWING])
def test_scheduler_that_is_given_stays_as_it_is(name: str) -> None:
    scheduler = _make(name)
    before = scheduler.timesteps.clone()
    options: dict[str, Any] = {"strength": 0.5}
    first = denoise(
        _network, scheduler, LATENTS, NOISE, steps=10, generators=_generators(), **options
    )
    denoise(_network, scheduler, LATENTS, NOISE, steps=7, generators=_generators(), **options)
    again = denoise(
        _network, scheduler, LATENTS, NOISE, steps=10, generators=_generators(), **options
    )
    assert torch.equal(first, again)
    assert torch.equal(scheduler.timesteps, before)
    assert getattr(scheduler, "step_index", None) is None


@pytest.mark.parametrize("name", ["DDIM", "PNDM", "EulerDiscrete", "HeunDiscrete"])
@pytest.mark.parametrize("strength", [0.0, 0.04])
def test_latents_come_back_where_no_step_is_run(name: str, strength: float) -> None:
    def predict(moving: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    found = denoise(
        predict,
        _make(name),
        LATENTS,
        NOISE,
        steps=20,
        strength=strength,
        generators=_generators(),
    )
    assert torch.equal(found, LATENTS)


def test_no_latents() -> None:
    options: dict[str, Any] = {"steps": 20, "strength": 0.5, "generators": []}
    found = denoise(_network, _make("DDIM"), LATENTS[:0], NOISE[:0], **options)
    assert found.shape == (0, 4, 4, 4)


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("DDIM", 1.0, list(range(900, -1, -100))),
        ("DDIM", 0.3, [200, 100, 0]),
        ("DDIM", 0.39, [200, 100, 0]),
        ("DDIM", 0.0, []),
        ("HeunDiscrete", 0.3, [200, 100, 100, 0, 0]),
        ("EulerDiscrete", 0.1, [0]),
    ],
)
def test_timesteps(name: str, strength: float, expected: list[int]) -> None:
    scheduler = as_new(_make(name))
    found = timesteps_of(scheduler, 10, strength, CPU)
    if name == "HeunDiscrete":
        # Every timestep but the first of all stands twice.
        expected = [200, *expected[1:]] if strength < 1 else expected
    assert found.tolist() == expected
    if expected and name != "DDIM":
        # What the sampler would look up otherwise; timesteps that are rounded can be equal.
        assert scheduler.begin_index == len(scheduler.timesteps) - len(expected)
