# SPDX-License-Identifier: Apache-2.0
"""What codecs with a diffusion model share. Importing this module needs torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ddkern.checks import as_seed
from ddkern.latents.arguments import as_ids, as_labels, as_latents, batches
from ddkern.latents.autoencoder import AutoencoderCodec
from ddkern.latents.decoding import Decoding
from ddkern.latents.denoise import Predict, denoise
from ddkern.latents.model_record import describe_model, describe_scheduler
from ddkern.latents.noise import Purpose, draw_normal, draw_words
from ddkern.latents.placement import bytes_of_maps, choose_batch_size, free_bytes
from ddkern.latents.scheduler import check_scheduler

__all__ = ["DiffusionCodec", "guided"]

# Maps of a denoiser that exist at once: the hidden state, its norm, queries, keys and values, and
# an inner layer that is four times as wide before and after its activation. Twice, for guidance.
# DiT was found to need 24, a U-Net with its skip connections 52; the autoencoder outweighs both.
_MAPS_AT_ONCE = 2 * 16


class DiffusionCodec(ABC):
    """An autoencoder whose latents are diffused and denoised on the way back.

    Subclasses say how their network predicts, and what they depend on.

    Parameters
    ----------
    autoencoder : AutoencoderCodec
        Encodes, and decodes what was denoised.
    denoiser : nn.Module
        On the device of the autoencoder, in its type.
    scheduler : scheduler of diffusers
    decoding : Decoding
        What arguments of :meth:`decode` that are None mean.
    n_classes : int
        Labels are below it.
    width : float
        Channels of the denoiser's maps, for each position of a latent.
    batch_size : int or None
        None is as many as half of the free memory holds by an estimate.
    """

    name: ClassVar[str]

    def __init__(
        self,
        autoencoder: AutoencoderCodec,
        denoiser: nn.Module,
        scheduler: Any,
        *,
        decoding: Decoding,
        n_classes: int,
        width: float,
        batch_size: int | None,
    ) -> None:
        check_scheduler(scheduler)
        weights = next(denoiser.parameters())
        if (weights.device, weights.dtype) != (autoencoder.device, autoencoder.dtype):
            raise ValueError(
                f"the {type(denoiser).__name__} is on {weights.device} in {weights.dtype}, but the "
                f"vae on {autoencoder.device} in {autoencoder.dtype}; both must be the same"
            )
        self._autoencoder = autoencoder
        self._denoiser = denoiser.eval()
        self._scheduler = scheduler
        self._decoding = self._check_decoding(decoding)
        self._n_classes = n_classes
        positions = int(np.prod(autoencoder.latent_shape[1:]))
        own = bytes_of_maps(round(positions * width), _MAPS_AT_ONCE, autoencoder.dtype)
        self._batch_size = choose_batch_size(
            batch_size, autoencoder.bytes_per_image + own, free_bytes(autoencoder.device)
        )
        self._record: dict[str, Any] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of the images on both sides."""
        return self._autoencoder.image_shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Channels, height, width of a latent."""
        return self._autoencoder.latent_shape

    @property
    def batch_size(self) -> int:
        """How many images pass through it at once."""
        return self._batch_size

    def describe(self) -> dict[str, Any]:
        """The models with digests of their weights, the sampler, and how they are run."""
        if self._record is None:
            self._record = {name: describe_model(model) for name, model in self._models().items()}
        return {
            "name": self.name,
            "autoencoder": self._autoencoder.describe(),
            **self._record,
            "scheduler": describe_scheduler(self._scheduler),
            "decoding": asdict(self._decoding),
            **self._options(),
        }

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Raise ValueError unless there are as many classes as it was made for."""
        if len(class_names) != self._n_classes:
            raise ValueError(
                f"class_names has {len(class_names)} classes; this {type(self).__name__} was made "
                f"for {self._n_classes}"
            )

    def encode(
        self, images: NDArray[np.uint8], *, ids: NDArray[np.int64] | None = None, seed: int = 0
    ) -> NDArray[np.float32]:
        """Latents of images. See :meth:`ddkern.latents.Codec.encode`.

        Raises
        ------
        TypeError, ValueError
            If an argument breaks its rule, or a latent is not finite.
        """
        return self._autoencoder.encode(images, ids=ids, seed=seed)

    @torch.inference_mode()
    def decode(
        self,
        latents: NDArray[np.float32],
        labels: NDArray[np.int64],
        *,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        ids: NDArray[np.int64] | None = None,
        seed: int = 0,
    ) -> NDArray[np.uint8]:
        """Images of latents. See :meth:`ddkern.latents.Codec.decode`.

        Raises
        ------
        TypeError, ValueError
            If an argument breaks its rule, or an image is not finite.
        """
        how = self._check_decoding(self._decoding.changed(strength, steps, guidance))
        checked = as_latents(latents, self.latent_shape)
        classes = as_labels(labels, len(checked), self._n_classes)
        keys = as_ids(ids, len(checked))
        key = as_seed("seed", seed)
        images = np.empty((len(checked), *self.image_shape), np.uint8)
        for rows in batches(len(checked), self._batch_size):
            denoised = self._denoise(checked[rows], classes[rows], keys[rows], key, how)
            images[rows] = self._autoencoder.images_of(denoised, rows)
        return images

    def decoding(
        self,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> dict[str, Any]:
        """The values that :meth:`decode` runs with. See :meth:`ddkern.latents.Codec.decoding`."""
        return asdict(self._check_decoding(self._decoding.changed(strength, steps, guidance)))

    @abstractmethod
    def _predictor(self, labels: NDArray[np.int64], guidance: float) -> Predict:
        """What the denoiser predicts for images of these classes, with guidance."""

    @abstractmethod
    def _models(self) -> dict[str, nn.Module]:
        """All models but the autoencoder, by what :meth:`describe` calls them."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """What else results depend on, as plain values (JSON)."""

    def _denoise(
        self,
        latents: NDArray[np.float32],
        labels: NDArray[np.int64],
        ids: NDArray[np.int64],
        seed: int,
        how: Decoding,
    ) -> torch.Tensor:
        device = self._autoencoder.device
        noise = draw_normal(seed, ids, Purpose.DIFFUSION, self.latent_shape)
        words = draw_words(seed, ids, Purpose.SAMPLER_STEPS, 1)[:, 0]
        return denoise(
            self._predictor(labels, how.guidance),
            self._scheduler,
            torch.tensor(latents, device=device),
            torch.from_numpy(noise).to(device),
            steps=how.steps,
            strength=how.strength,
            generators=[torch.Generator().manual_seed(word) for word in words.tolist()],
        )

    def _check_decoding(self, how: Decoding) -> Decoding:
        most = int(self._scheduler.config.num_train_timesteps)
        if how.steps > most:
            raise ValueError(
                f"steps={how.steps}; it must be at most {most}, for which the diffusion model was "
                "trained"
            )
        return how


def guided(conditional: torch.Tensor, unconditional: torch.Tensor, guidance: float) -> torch.Tensor:
    """Classifier-free guidance: the unconditional prediction and ``guidance`` times the difference.

    References
    ----------
    J. Ho and T. Salimans, "Classifier-free diffusion guidance", 2022.
    """
    return unconditional + guidance * (conditional - unconditional)
