# SPDX-License-Identifier: Apache-2.0
"""What the two networks of a prior are trained to do, by formulas written anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from torch import Tensor  # noqa: E402

from ddkern.priors import AutoencoderRecipe, DiffusionRecipe, autoencoder, diffusion  # noqa: E402

Loss = Callable[[Any, int], Tensor]
SEED, STEP = 5, 3


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Loss]:
    """The losses that would have been trained on."""
    losses: list[Loss] = []
    for module in (autoencoder, diffusion):
        monkeypatch.setattr(module, "run_steps", lambda model, loss, **_: losses.append(loss))
    return losses


def diffusion_loss(kept: list[Loss], **options: Any) -> tuple[Tensor, dict[str, Tensor], Any]:
    """The loss of a network that predicts 0, what it was shown, and what was drawn."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(12, 2, 4, 4, generator=generator)
    labels = torch.arange(12) % 3
    recipe = DiffusionRecipe(batch_size=8, **options)
    diffusion.train_transformer(
        None,
        latents,
        labels,
        recipe,
        n_classes=3,
        seed=SEED,
        precision="float32",
        checkpoint=Path(),
        progress=None,
    )
    seen: dict[str, Tensor] = {}

    def network(noisy: Tensor, **arguments: Tensor) -> Any:
        seen.update(arguments, noisy=noisy)
        return SimpleNamespace(sample=torch.zeros_like(noisy))

    loss = kept[-1](network, STEP)
    rows = diffusion.batch_rows(12, 8, SEED, STEP)
    draw = np.random.Generator(np.random.Philox(key=[SEED, (STEP << 8) + 2]))
    hidden = draw.random(8) < recipe.class_dropout
    times = draw.integers(0, 1000, 8)
    noise = torch.from_numpy(draw.standard_normal((8, 2, 4, 4), np.float32))
    alpha = diffusion.build_scheduler(recipe).alphas_cumprod[times]
    return loss, seen, (latents[rows], labels[rows], hidden, noise, alpha)


def test_noise_is_added_as_in_ddpm_and_some_classes_are_hidden(kept: list[Loss]) -> None:
    _, seen, (latents, labels, hidden, noise, alpha) = diffusion_loss(kept, class_dropout=0.5)
    a = alpha[:, None, None, None]
    torch.testing.assert_close(seen["noisy"], a.sqrt() * latents + (1 - a).sqrt() * noise)
    assert 0 < hidden.sum() < 8
    shown = np.where(hidden, 3, labels.numpy())
    np.testing.assert_array_equal(seen["class_labels"].numpy(), shown)


@pytest.mark.parametrize("kind", ["plain", "min_snr"])
def test_the_error_of_the_noise_is_weighted(kind: str, kept: list[Loss]) -> None:
    loss, _, (_, _, _, noise, alpha) = diffusion_loss(kept, loss=kind)
    snr = alpha / (1 - alpha)
    weight = torch.ones(8) if kind == "plain" else torch.minimum(snr, torch.tensor(5.0)) / snr
    expected = (weight * noise.square().mean((1, 2, 3))).mean()
    torch.testing.assert_close(loss, expected)


def test_the_autoencoder_pays_for_its_divergence(kept: list[Loss]) -> None:
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    mean, logvar = torch.full((6, 2, 4, 4), 0.5), torch.full((6, 2, 4, 4), -1.0)
    posterior = SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, logvar=logvar))
    model = SimpleNamespace(
        encode=lambda _: posterior,
        decode=lambda _: SimpleNamespace(sample=torch.zeros(6, 1, 8, 8)),
    )
    losses = []
    for weight in (0.0, 1.0):
        recipe = AutoencoderRecipe(kl_weight=weight, batch_size=6)
        autoencoder.train_autoencoder(
            None,
            images,
            recipe,
            seed=SEED,
            precision="float32",
            checkpoint=Path(),
            progress=None,
        )
        losses.append(float(kept[-1](model, STEP)))
    error = float((images / 127.5 - 1).abs().mean())
    assert losses[0] == pytest.approx(error, rel=1e-5)
    divergence = 32 * 0.5 * (0.25 + np.exp(-1) - 1 + 1)
    assert losses[1] - losses[0] == pytest.approx(divergence, rel=1e-5)
