# SPDX-License-Identifier: Apache-2.0
"""An autoencoder of diffusers without diffusion. Importing this module needs torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ddkern.checks import as_image_size, as_seed
from ddkern.latents.arguments import (
    as_ids,
    as_image_shape,
    as_images,
    as_labels,
    as_latents,
    batches,
    refuse_decoding,
)
from ddkern.latents.canvas import Canvas
from ddkern.latents.checkpoint import Checkpoint, find_checkpoint
from ddkern.latents.model_record import describe_model
from ddkern.latents.noise import Purpose, draw_normal
from ddkern.latents.placement import (
    bytes_of_maps,
    choose_batch_size,
    choose_dtype,
    free_bytes,
)
from ddkern.optional import import_optional
from ddkern.training import choose_device

__all__ = ["AUTOENCODERS", "AutoencoderCodec", "check_autoencoder", "factor_of", "load_autoencoder"]

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")

# Maps as large as the canvas, with the channels of the wider of the two outermost blocks, that
# exist at once while the outermost block of a decoder runs: input, norm, activation, and the output
# of the first convolution with a copy. That of Stable Diffusion was found to need 3.2 to 4.
_MAPS_AT_ONCE = 4

# The tiles of diffusers fit together when their sides, in latents, are multiples of this.
_TILE_STEP = 4


class AutoencoderCodec:
    """Latents are those of an AutoencoderKL or AutoencoderTiny, scaled for diffusion models.

    An image becomes the mean of its posterior, or a draw from it. Latents lose
    ``shift_factor`` and are multiplied by ``scaling_factor``, both from the configuration, and the
    reverse is done before they are decoded.

    Parameters
    ----------
    vae : AutoencoderKL or AutoencoderTiny
        Runs where it lies and in the type that it has; is put into evaluation mode. Its weights
        must not change afterwards.
    image_shape : (int, int, int), optional
        Channels (1 or 3), height, width of the images; those of the canvas by default.
    canvas_size : int or (int, int), optional
        Height and width that images are resized to for it, multiples of the factor by which it
        makes them smaller. By default ``sample_size`` of its configuration; where there is none,
        the image's size rounded up.
    sample : bool
        Whether to draw from the posterior; only AutoencoderKL has one.
    batch_size : int, optional
        By default as many as half of the free memory holds: an image counts as four maps as large
        as the canvas with the channels of the wider of the two outermost blocks.
    tiling : bool, optional
        Whether images pass one by one, in overlapping tiles of half the canvas that are blended:
        less memory, and slightly other results. By default where one image would not fit into the
        free memory. Only for AutoencoderKL.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule.
    """

    name: ClassVar[str] = "autoencoder"

    def __init__(
        self,
        vae: nn.Module,
        *,
        image_shape: Sequence[int] | None = None,
        canvas_size: int | Sequence[int] | None = None,
        sample: bool = False,
        batch_size: int | None = None,
        tiling: bool | None = None,
    ) -> None:
        self._has_posterior = check_autoencoder(vae)
        if sample and not self._has_posterior:
            raise ValueError(f"sample={sample}; {type(vae).__name__} has no posterior to draw from")
        self._vae: Any = vae.eval()
        self._sample = bool(sample)
        config: Any = vae.config
        self._factor = factor_of(vae)
        self._canvas = self._choose_canvas(image_shape, canvas_size)
        self._shift = float(getattr(config, "shift_factor", None) or 0.0)
        self._scale = float(config.scaling_factor)
        maps = _MAPS_AT_ONCE * max(_widths(vae)[:2])
        pixels = self._canvas.size[0] * self._canvas.size[1]
        self.bytes_per_image = bytes_of_maps(pixels, maps, self.dtype)
        self._tile = self._choose_tile(tiling)
        self._batch_size = choose_batch_size(
            batch_size, self.bytes_per_image, free_bytes(self.device)
        )
        self._record: dict[str, Any] | None = None

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        image_shape: Sequence[int] | None = None,
        canvas_size: int | Sequence[int] | None = None,
        sample: bool = False,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        tiling: bool | None = None,
    ) -> AutoencoderCodec:
        """Load an autoencoder, or that of a pipeline.

        Parameters
        ----------
        path_or_id : path-like or str
            A folder that ``save_pretrained`` wrote, or the name of a repository of Hugging Face,
            which is fetched unless ``HF_HUB_OFFLINE`` is set.
        device : str or torch.device
            ``"auto"`` is the first CUDA device, or the CPU without one.
        dtype : {"auto", "float32", "float16", "bfloat16"}
            ``"auto"`` is float16 on a CUDA device and float32 elsewhere.
        image_shape, canvas_size, sample, batch_size, tiling
            See :class:`AutoencoderCodec`.

        Raises
        ------
        FileNotFoundError
            If the weights are not there. The message says how to fetch them.
        UnsupportedError
            If diffusers is not installed.
        TypeError, ValueError
            If it is no autoencoder of these kinds, or an argument breaks its rule.
        """
        checkpoint = find_checkpoint(path_or_id)
        where = choose_device(device)
        part = "vae" if checkpoint.read_json("vae/config.json") is not None else None
        vae = load_autoencoder(checkpoint, part, where, choose_dtype(dtype, where))
        return cls(
            vae,
            image_shape=image_shape,
            canvas_size=canvas_size,
            sample=sample,
            batch_size=batch_size,
            tiling=tiling,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of the images on both sides."""
        return self._canvas.image_shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Channels, height, width of a latent."""
        height, width = self._canvas.size
        channels = int(self._vae.config.latent_channels)
        return channels, height // self._factor, width // self._factor

    @property
    def batch_size(self) -> int:
        """How many images pass through it at once."""
        return self._batch_size

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        found: torch.device = next(self._vae.parameters()).device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights, and of what it computes."""
        found: torch.dtype = next(self._vae.parameters()).dtype
        return found

    def describe(self) -> dict[str, Any]:
        """The autoencoder with a digest of its weights, and how it is run."""
        if self._record is None:
            self._record = describe_model(self._vae)
        return {
            "name": self.name,
            "image_shape": list(self.image_shape),
            "canvas": list(self._canvas.shape),
            "sample": self._sample,
            "tile": self._tile,
            "vae": self._record,
        }

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """An autoencoder knows no classes: nothing is refused."""

    @torch.inference_mode()
    def encode(
        self, images: NDArray[np.uint8], *, ids: NDArray[np.int64] | None = None, seed: int = 0
    ) -> NDArray[np.float32]:
        """Latents of images. See :meth:`ddkern.latents.Codec.encode`.

        Raises
        ------
        TypeError, ValueError
            If an argument breaks its rule, or a latent is not finite.
        """
        checked = as_images(images, self.image_shape)
        keys = as_ids(ids, len(checked))
        key = as_seed("seed", seed)
        latents = np.empty((len(checked), *self.latent_shape), np.float32)
        for rows in batches(len(checked), self._batch_size):
            noise = None
            if self._sample:
                drawn = draw_normal(key, keys[rows], Purpose.POSTERIOR, self.latent_shape)
                noise = torch.from_numpy(drawn).to(self.device)
            found = self._to_latents(self._canvas.paint(checked[rows], self.device), noise)
            self._check_finite(found, rows, "latent")
            latents[rows] = found.cpu().numpy()
        return latents

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
        self.decoding(strength, steps, guidance)
        checked = as_latents(latents, self.latent_shape)
        as_labels(labels, len(checked))
        as_ids(ids, len(checked))
        as_seed("seed", seed)
        images = np.empty((len(checked), *self.image_shape), np.uint8)
        for rows in batches(len(checked), self._batch_size):
            images[rows] = self.images_of(torch.tensor(checked[rows], device=self.device), rows)
        return images

    def decoding(
        self,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> dict[str, Any]:
        """Nothing: there is no diffusion model, and all three must be None."""
        return refuse_decoding(type(self).__name__, strength, steps, guidance)

    def images_of(self, latents: torch.Tensor, rows: slice) -> NDArray[np.uint8]:
        """Images of the latents of some rows of a call, which messages name.

        Parameters
        ----------
        latents : Tensor of float32, shape (n, *latent_shape)
            On the device.
        rows : slice

        Raises
        ------
        ValueError
            If an image is not finite.
        """
        unscaled = latents / self._scale + self._shift
        values: torch.Tensor = self._vae.decode(unscaled.to(self.dtype)).sample
        self._check_finite(values, rows, "image")
        return self._canvas.read(values)

    def _to_latents(self, values: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        encoded = self._vae.encode(values.to(self.dtype))
        found: torch.Tensor
        if self._has_posterior:
            posterior = encoded.latent_dist
            found = posterior.mean.float()
            if noise is not None:
                found = found + posterior.std.float() * noise
        else:
            found = encoded.latents.float()
        return (found - self._shift) * self._scale

    def _check_finite(self, values: torch.Tensor, rows: slice, what: str) -> None:
        finite = values.isfinite().flatten(1).all(dim=1)
        if not bool(finite.all()):
            row = rows.start + int(finite.int().argmin())
            name = str(self.dtype).removeprefix("torch.")
            hint = "" if name == "float32" else "; try dtype='float32'"
            raise ValueError(f"the {what} of row {row} has NaN or infinity in {name}{hint}")

    def _choose_canvas(self, image_shape: Any, canvas_size: Any) -> Canvas:
        config = self._vae.config
        factor = self._factor
        if canvas_size is not None:
            size = as_image_size(canvas_size, "canvas_size")
            if size[0] % factor or size[1] % factor:
                raise ValueError(
                    f"canvas_size={canvas_size!r}; height and width must be multiples of {factor}"
                )
        else:
            wanted = getattr(config, "sample_size", None)
            if wanted is None and image_shape is None:
                raise ValueError(
                    "image_shape=None; it or canvas_size must be given, for this "
                    f"{type(self._vae).__name__} takes images of any size"
                )
            sides = as_image_shape(image_shape)[1:] if wanted is None else as_image_size(wanted)
            size = (-(-sides[0] // factor) * factor, -(-sides[1] // factor) * factor)
        shape = (config.in_channels, *size) if image_shape is None else image_shape
        return Canvas(shape, config.in_channels, size)

    def _choose_tile(self, tiling: bool | None) -> int | None:
        """Side of a tile, in latents; None is without tiles. Sets the autoencoder to it."""
        if not self._has_posterior:
            if tiling:
                raise ValueError(
                    f"tiling={tiling}; {type(self._vae).__name__} must run without tiles"
                )
            return None
        if tiling is None:
            tiling = self.bytes_per_image > free_bytes(self.device)
        if not tiling:
            self._vae.disable_tiling()
            self._vae.disable_slicing()
            return None
        half = max(self._canvas.size) // (2 * self._factor)
        tile = max(_TILE_STEP, half // _TILE_STEP * _TILE_STEP)
        self._vae.enable_tiling()
        self._vae.enable_slicing()
        self._vae.tile_latent_min_size = tile
        self._vae.tile_sample_min_size = tile * self._factor
        return tile


def load_autoencoder(
    checkpoint: Checkpoint, part: str | None, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """The autoencoder of a checkpoint, whichever of :data:`AUTOENCODERS` it is.

    Parameters
    ----------
    checkpoint : Checkpoint
    part : str or None
        The folder of it; None for the checkpoint's own.
    device : torch.device
    dtype : torch.dtype

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is of another class.
    """
    diffusers = import_optional("diffusers", "an autoencoder", "diffusion")
    config = checkpoint.read_json("config.json" if part is None else f"{part}/config.json")
    if config is None:
        raise checkpoint.missing(part or "config.json")
    kind = config.get("_class_name")
    if kind not in AUTOENCODERS:
        raise ValueError(
            f"{checkpoint.name!r} holds a {kind}; it must be one of {', '.join(AUTOENCODERS)}"
        )
    vae: nn.Module = checkpoint.load(getattr(diffusers, kind), part, torch_dtype=dtype)
    return vae.to(device)


def factor_of(vae: Any) -> int:
    """How many pixels of an image's side become one of a latent's."""
    return 1 << (len(_widths(vae)) - 1)


def _widths(vae: Any) -> Sequence[int]:
    """Channels of the blocks of an encoder, the outermost first."""
    config = vae.config
    found: Sequence[int] = getattr(config, "encoder_block_out_channels", config.block_out_channels)
    return found


def check_autoencoder(vae: Any) -> bool:
    """Whether it has a posterior; TypeError or ValueError if it cannot be used."""
    diffusers = import_optional("diffusers", "an autoencoder", "diffusion")
    kinds = tuple(getattr(diffusers, kind) for kind in AUTOENCODERS)
    if not isinstance(vae, kinds):
        raise TypeError(f"vae is a {type(vae).__name__}; it must be an {' or '.join(AUTOENCODERS)}")
    config = vae.config
    channels = config.in_channels, config.out_channels
    if channels[0] != channels[1] or channels[0] not in (1, 3):
        raise ValueError(
            f"vae takes {channels[0]} channels and gives {channels[1]}; both must be 1 or both 3"
        )
    return isinstance(vae, diffusers.AutoencoderKL)
