# SPDX-License-Identifier: Apache-2.0
"""Class-conditional diffusion transformers (DiT). Importing this module needs torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ddkern.checks import as_count
from ddkern.latents.autoencoder import (
    AutoencoderCodec,
    check_autoencoder,
    factor_of,
    load_autoencoder,
)
from ddkern.latents.checkpoint import find_checkpoint, load_decoding
from ddkern.latents.decoding import Decoding
from ddkern.latents.denoise import Predict
from ddkern.latents.diffusion import DiffusionCodec, guided
from ddkern.latents.placement import choose_dtype
from ddkern.latents.scheduler import load_scheduler
from ddkern.optional import import_optional
from ddkern.training import choose_device

__all__ = ["DIT_DECODING", "DitCodec"]

DIT_DECODING = Decoding(strength=0.7, steps=50, guidance=4.0)
"""What arguments of decoding are unless a codec has values of its own."""

_PURPOSE = "a diffusion transformer"


class DitCodec(DiffusionCodec):
    """An autoencoder and a transformer that denoises its latents, given the class of the image.

    The layout is that of ``diffusers.DiTPipeline``. Channels in which the transformer predicts a
    variance are dropped. Guidance compares with the row of the label table that stands for no
    class, which is the last one.

    Parameters
    ----------
    vae : AutoencoderKL or AutoencoderTiny
    transformer : DiTTransformer2DModel
        On the device and in the type of the autoencoder. Both are put into evaluation mode, and
        their weights must not change afterwards.
    scheduler : scheduler of diffusers
        See :func:`ddkern.latents.scheduler.check_scheduler`.
    image_shape : (int, int, int), optional
        Channels (1 or 3), height, width of the images, which are resized to what the transformer
        takes; that by default.
    classes : sequence of int, optional
        The row of the label table for each label of the data set. By default label i is row i, and
        there must be as many labels as rows: those of another table would get other classes.
    strength, steps, guidance : optional
        What :meth:`decode` takes where it is given none: 0.7, 50, 4.
    sample : bool
        Whether images are encoded as draws from their posteriors.
    batch_size : int, optional
        By default as many as half of the free memory holds by an estimate.
    tiling : bool, optional
        See :class:`ddkern.latents.AutoencoderCodec`.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule, or the models do not fit together.
    UnsupportedError
        If the scheduler draws noise that cannot be made to depend on the image alone.

    References
    ----------
    W. Peebles and S. Xie, "Scalable diffusion models with transformers", ICCV 2023.
    """

    name: ClassVar[str] = "dit"

    def __init__(
        self,
        vae: nn.Module,
        transformer: nn.Module,
        scheduler: Any,
        *,
        image_shape: Sequence[int] | None = None,
        classes: Sequence[int] | None = None,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sample: bool = False,
        batch_size: int | None = None,
        tiling: bool | None = None,
    ) -> None:
        diffusers = import_optional("diffusers", _PURPOSE, "diffusion")
        if not isinstance(transformer, diffusers.DiTTransformer2DModel):
            raise TypeError(
                f"transformer is a {type(transformer).__name__}; it must be a DiTTransformer2DModel"
            )
        check_autoencoder(vae)
        config: Any = transformer.config
        latent_channels = cast(Any, vae.config).latent_channels
        if config.in_channels != latent_channels:
            raise ValueError(
                f"transformer takes latents of {config.in_channels} channels, but vae makes "
                f"{latent_channels}; they must be equal"
            )
        self._null_class = int(config.num_embeds_ada_norm)
        self._classes = None if classes is None else _as_classes(classes, self._null_class)
        autoencoder = AutoencoderCodec(
            vae,
            image_shape=image_shape,
            canvas_size=config.sample_size * factor_of(vae),
            sample=sample,
            batch_size=batch_size,
            tiling=tiling,
        )
        super().__init__(
            autoencoder,
            transformer,
            scheduler,
            decoding=DIT_DECODING.changed(strength, steps, guidance),
            n_classes=self._null_class if self._classes is None else len(self._classes),
            width=config.num_attention_heads * config.attention_head_dim / config.patch_size**2,
            batch_size=batch_size,
        )

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        image_shape: Sequence[int] | None = None,
        classes: Sequence[int] | None = None,
        scheduler: str | None = None,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sample: bool = False,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        tiling: bool | None = None,
    ) -> DitCodec:
        """Load the parts of a DiTPipeline.

        Parameters
        ----------
        path_or_id : path-like or str
            A folder that ``save_pretrained`` wrote, or the name of a repository of Hugging Face,
            such as ``"facebook/DiT-XL-2-256"``, which is fetched unless ``HF_HUB_OFFLINE`` is set.
            Where it has a file ``ddkern_decoding.json``, that gives the values of strength, steps
            and guidance that are not given here.
        scheduler : str, optional
            Another scheduler of diffusers in the place of its own, by class name, with its
            configuration.
        device : str or torch.device
            ``"auto"`` is the first CUDA device, or the CPU without one.
        dtype : {"auto", "float32", "float16", "bfloat16"}
            ``"auto"`` is float16 on a CUDA device and float32 elsewhere.
        image_shape, classes, strength, steps, guidance, sample, batch_size, tiling
            See :class:`DitCodec`.

        Raises
        ------
        FileNotFoundError
            If the weights are not there. The message says how to fetch them.
        UnsupportedError
            If diffusers is not installed, or as :class:`DitCodec`.
        TypeError, ValueError
            As :class:`DitCodec`.
        """
        diffusers = import_optional("diffusers", _PURPOSE, "diffusion")
        checkpoint = find_checkpoint(path_or_id)
        where = choose_device(device)
        number = choose_dtype(dtype, where)
        how = load_decoding(checkpoint, DIT_DECODING).changed(strength, steps, guidance)
        sampler = load_scheduler(checkpoint, scheduler)
        transformer = checkpoint.load(
            diffusers.DiTTransformer2DModel, "transformer", torch_dtype=number
        )
        return cls(
            load_autoencoder(checkpoint, "vae", where, number),
            transformer.to(where),
            sampler,
            image_shape=image_shape,
            classes=classes,
            strength=how.strength,
            steps=how.steps,
            guidance=how.guidance,
            sample=sample,
            batch_size=batch_size,
            tiling=tiling,
        )

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Raise ValueError if the label table, or ``classes``, is for another number of labels."""
        if self._classes is not None:
            super().check_classes(class_names)
        elif len(class_names) != self._null_class:
            raise ValueError(
                f"class_names has {len(class_names)} classes, but the label table of the "
                f"transformer {self._null_class}; give classes, the row of the table for each"
            )

    def _predictor(self, labels: NDArray[np.int64], guidance: float) -> Predict:
        transformer: Any = self._denoiser
        device, dtype = self._autoencoder.device, self._autoencoder.dtype
        channels = self.latent_shape[0]
        rows = labels if self._classes is None else np.array(self._classes)[labels]
        table_rows = torch.tensor(rows, device=device)
        is_guided = guidance > 1
        if is_guided:
            nothing = torch.full_like(table_rows, self._null_class)
            table_rows = torch.cat([table_rows, nothing])

        def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            inputs = latents.to(dtype)
            if is_guided:
                inputs = torch.cat([inputs, inputs])
            times = timestep.expand(len(inputs))
            output = transformer(inputs, timestep=times, class_labels=table_rows).sample
            prediction: torch.Tensor = output[:, :channels].float()
            if not is_guided:
                return prediction
            conditional, unconditional = prediction.chunk(2)
            return guided(conditional, unconditional, guidance)

        return predict

    def _models(self) -> dict[str, nn.Module]:
        return {"transformer": self._denoiser}

    def _options(self) -> dict[str, Any]:
        return {"classes": None if self._classes is None else list(self._classes)}


def _as_classes(classes: Any, n_rows: int) -> tuple[int, ...]:
    if isinstance(classes, (str, bytes)) or not hasattr(classes, "__iter__"):
        raise TypeError(f"classes={classes!r}; it must hold a row of the label table a label")
    rows = tuple(
        as_count(f"classes[{label}]", row, at_least=0, at_most=n_rows - 1)
        for label, row in enumerate(classes)
    )
    if not rows:
        raise ValueError("classes is empty; it must hold a row of the label table a label")
    return rows
