# SPDX-License-Identifier: Apache-2.0
"""How a prior is built and trained, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from ddkern.checks import as_count, as_fraction, as_number, check_choice

__all__ = ["AutoencoderRecipe", "DiffusionRecipe", "PriorRecipe"]

_Part = TypeVar("_Part", "AutoencoderRecipe", "DiffusionRecipe")


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderRecipe:
    """A KL autoencoder: its network, and how it is trained.

    Attributes
    ----------
    channels : tuple of int
        Of the blocks, from images inwards; each but the first halves height and width.
    latent_channels : int
    layers_per_block : int
    norm_groups : int
        Divides every entry of ``channels``.
    kl_weight : float
        Of the Kullback-Leibler divergence from the standard normal, summed over a latent; beside
        it stands the mean absolute error of a pixel in [-1, 1].
    steps, batch_size : int
    lr : float
        Of AdamW, after warm-up and before the cosine that ends at 0.
    """

    channels: tuple[int, ...] = (16, 32)
    latent_channels: int = 4
    layers_per_block: int = 1
    norm_groups: int = 8
    kl_weight: float = 1e-6
    steps: int = 500
    batch_size: int = 64
    lr: float = 3e-3

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("channels=(); an autoencoder needs at least one block")
        for channels in self.channels:
            as_count("channels", channels)
            if channels % as_count("norm_groups", self.norm_groups):
                raise ValueError(
                    f"norm_groups={self.norm_groups}; it must divide channels={self.channels}"
                )
        for name in ("latent_channels", "layers_per_block", "steps", "batch_size"):
            as_count(name, getattr(self, name))
        as_number("kl_weight", self.kl_weight, at_least=0)
        _check_lr(self.lr)

    @property
    def factor(self) -> int:
        """How many times smaller a latent is than an image, in height and in width."""
        return 1 << (len(self.channels) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionRecipe:
    """A class-conditional diffusion transformer on latents, and how it is trained.

    Attributes
    ----------
    layers, heads, head_size, patch_size : int
        Of the transformer; its width is ``heads * head_size``.
    beta_schedule : {"linear", "scaled_linear"}
        Of 1000 steps of noise. Cosine schedules end at so little signal that samplers of few steps
        lose their way at the beginning.
    loss : {"min_snr", "plain"}
        The squared error of the noise, weighted by ``min(snr, 5) / snr`` (T. Hang et al., ICCV
        2023, equation 7) or not.
    class_dropout : float
        Share of images whose class is hidden, for classifier-free guidance.
    ema : float
        Decay of the averaged weights, which are the ones that are kept; lower at the beginning.
    steps, batch_size : int
    lr : float
    """

    layers: int = 3
    heads: int = 2
    head_size: int = 32
    patch_size: int = 1
    beta_schedule: str = "scaled_linear"
    loss: Literal["min_snr", "plain"] = "min_snr"
    class_dropout: float = 0.1
    ema: float = 0.99
    steps: int = 1500
    batch_size: int = 64
    lr: float = 2e-3

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "head_size", "patch_size", "steps", "batch_size"):
            as_count(name, getattr(self, name))
        check_choice("beta_schedule", self.beta_schedule, ("linear", "scaled_linear"))
        check_choice("loss", self.loss, ("min_snr", "plain"))
        as_fraction("class_dropout", self.class_dropout)
        as_number("ema", self.ema, at_least=0, at_most=1 - 1e-9)
        _check_lr(self.lr)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorRecipe:
    """A diffusion prior: autoencoder and diffusion model, and how images are drawn from it.

    Attributes
    ----------
    autoencoder : AutoencoderRecipe
    diffusion : DiffusionRecipe
    strength, guidance : float
    sampler_steps : int
        What decoding uses where nothing else is said; kept beside the weights. On digits, less
        strength was better down to none (docs/evaluation.md).
    """

    autoencoder: AutoencoderRecipe = field(default_factory=AutoencoderRecipe)
    diffusion: DiffusionRecipe = field(default_factory=DiffusionRecipe)
    strength: float = 0.2
    guidance: float = 1.5
    sampler_steps: int = 30

    def __post_init__(self) -> None:
        as_fraction("strength", self.strength)
        as_number("guidance", self.guidance, at_least=1)
        as_count("sampler_steps", self.sampler_steps)

    @classmethod
    def for_images(cls, image_shape: tuple[int, int, int]) -> PriorRecipe:
        """A recipe that fits images of this shape.

        Images up to 12 pixels high are halved once, up to 48 twice, larger ones three times, and
        the networks grow with them. The numbers of steps are those that digits (8 x 8) take about a
        minute for on two CPU cores, and CIFAR-10 (32 x 32) about ten minutes on a GPU.
        """
        side = min(image_shape[1:])
        if side <= 12:
            return cls()
        autoencoder = AutoencoderRecipe(
            channels=(64, 128, 128) if side <= 48 else (64, 128, 256, 256),
            layers_per_block=2,
            steps=12_000,
            batch_size=128,
            lr=5e-4,
        )
        diffusion = DiffusionRecipe(
            layers=12,
            heads=6,
            head_size=64,
            patch_size=1,
            ema=0.9995,
            steps=40_000,
            batch_size=256,
            lr=3e-4,
        )
        return cls(autoencoder=autoencoder, diffusion=diffusion)

    def shortened(self, share: float) -> PriorRecipe:
        """The same with this share of the steps, in (0, 1], of both trainings."""
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share={share}; it must be above 0 and at most 1")

        return replace(
            self,
            autoencoder=_with_steps(self.autoencoder, math.ceil(self.autoencoder.steps * share)),
            diffusion=_with_steps(self.diffusion, math.ceil(self.diffusion.steps * share)),
        )

    def with_steps(self, steps: int) -> PriorRecipe:
        """The same with this number of steps of both trainings."""
        return replace(
            self,
            autoencoder=_with_steps(self.autoencoder, steps),
            diffusion=_with_steps(self.diffusion, steps),
        )

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """Raise ValueError unless images of this shape fit the networks."""
        if min(image_shape[1:]) < 8:
            raise ValueError(
                f"images are {image_shape[1]} x {image_shape[2]}; a prior needs at least 8 x 8"
            )
        factor = self.autoencoder.factor
        for side in image_shape[1:]:
            if side % (factor * self.diffusion.patch_size):
                raise ValueError(
                    f"images are {image_shape[1]} x {image_shape[2]}; both sides must be divisible "
                    f"by {factor * self.diffusion.patch_size}, which the autoencoder (1/{factor}) "
                    f"and patch_size={self.diffusion.patch_size} ask for"
                )
        if image_shape[1] != image_shape[2]:
            raise ValueError(
                f"images are {image_shape[1]} x {image_shape[2]}; the diffusion transformer takes "
                "square ones"
            )


def _with_steps(part: _Part, steps: int) -> _Part:
    return replace(part, steps=steps)


def _check_lr(lr: float) -> None:
    if as_number("lr", lr, at_least=0) == 0:
        raise ValueError("lr=0; it must be above 0")
