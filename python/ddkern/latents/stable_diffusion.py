# SPDX-License-Identifier: Apache-2.0
"""Stable Diffusion, prompted with the names of classes. Importing this module needs torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ddkern.errors import UnsupportedError
from ddkern.latents.autoencoder import (
    AutoencoderCodec,
    check_autoencoder,
    factor_of,
    load_autoencoder,
)
from ddkern.latents.checkpoint import Checkpoint, find_checkpoint, load_decoding
from ddkern.latents.decoding import Decoding
from ddkern.latents.denoise import Predict
from ddkern.latents.diffusion import DiffusionCodec, guided
from ddkern.latents.placement import choose_dtype
from ddkern.latents.scheduler import load_scheduler
from ddkern.optional import import_optional
from ddkern.training import choose_device

__all__ = ["NEGATIVE_PROMPT", "STABLE_DIFFUSION_DECODING", "StableDiffusionCodec"]

NEGATIVE_PROMPT = "cartoon, anime, painting"
"""What D4M guides away from."""

STABLE_DIFFUSION_DECODING = Decoding(strength=0.7, steps=50, guidance=8.0)
"""What arguments of decoding are unless a codec has values of its own: those of D4M."""

_PURPOSE = "Stable Diffusion"
_PLACE = "{}"
_VOCABULARIES = ("vocab.json", "tokenizer.json")


class StableDiffusionCodec(DiffusionCodec):
    """An autoencoder and a U-Net that denoises its latents, given a prompt for the class.

    The layout is that of ``diffusers.StableDiffusionPipeline``, versions 1 and 2. Prompts are
    encoded once a class, each alone, when the class is first decoded.

    Parameters
    ----------
    vae : AutoencoderKL or AutoencoderTiny
    unet : UNet2DConditionModel
        On the device and in the type of the autoencoder.
    text_encoder : CLIPTextModel
        On the same device. All three are put into evaluation mode, and their weights must not
        change afterwards.
    tokenizer : CLIPTokenizer
    scheduler : scheduler of diffusers
        See :func:`ddkern.latents.scheduler.check_scheduler`.
    class_names : sequence of str
        What the prompts call each class of the data set, in the order of the labels.
    template : str
        A prompt in which ``{}`` stands for the name.
    negative_prompt : str
        What guidance leads away from.
    image_shape : (int, int, int), optional
        Channels (1 or 3), height, width of the images, which are resized to the canvas; its own by
        default.
    canvas_size : int or (int, int), optional
        Height and width of the canvas, multiples of the factor by which the autoencoder makes them
        smaller; by default those that the U-Net was trained for.
    strength, steps, guidance : optional
        What :meth:`decode` takes where it is given none: 0.7, 50, 8.
    sample : bool
        Whether images are encoded as draws from their posteriors.
    batch_size : int, optional
        By default as many as half of the free memory holds by an estimate.
    tiling : bool, optional
        See :class:`ddkern.latents.AutoencoderCodec`.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule, the models do not fit together, or a prompt is too long.
    UnsupportedError
        If the U-Net needs more than a prompt, or the scheduler draws noise that cannot be made to
        depend on the image alone.

    References
    ----------
    .. [1] R. Rombach et al., "High-resolution image synthesis with latent diffusion models", CVPR
       2022.
    .. [2] D. Su et al., "D4M: dataset distillation via disentangled diffusion model", CVPR 2024.
    """

    name: ClassVar[str] = "stable-diffusion"

    def __init__(
        self,
        vae: nn.Module,
        unet: nn.Module,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        *,
        class_names: Sequence[str],
        template: str = _PLACE,
        negative_prompt: str = NEGATIVE_PROMPT,
        image_shape: Sequence[int] | None = None,
        canvas_size: int | Sequence[int] | None = None,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sample: bool = False,
        batch_size: int | None = None,
        tiling: bool | None = None,
    ) -> None:
        check_autoencoder(vae)
        _check_unet(unet, vae)
        self._prompts = _make_prompts(class_names, template)
        if not isinstance(negative_prompt, str):
            raise TypeError(
                f"negative_prompt is a {type(negative_prompt).__name__}; it must be a str"
            )
        self._negative_prompt = negative_prompt
        self._text_encoder = text_encoder.eval()
        longest = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
        self._tokens = {
            prompt: _tokenize(tokenizer, prompt, longest)
            for prompt in (negative_prompt, *self._prompts)
        }
        self._embeddings: dict[str, torch.Tensor] = {}
        config: Any = unet.config
        if canvas_size is None:
            sides = config.sample_size
            sides = (sides, sides) if isinstance(sides, int) else sides
            canvas_size = tuple(side * factor_of(vae) for side in sides)
        autoencoder = AutoencoderCodec(
            vae,
            image_shape=image_shape,
            canvas_size=canvas_size,
            sample=sample,
            batch_size=batch_size,
            tiling=tiling,
        )
        super().__init__(
            autoencoder,
            unet,
            scheduler,
            decoding=STABLE_DIFFUSION_DECODING.changed(strength, steps, guidance),
            n_classes=len(self._prompts),
            width=config.block_out_channels[0],
            batch_size=batch_size,
        )

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        class_names: Sequence[str],
        template: str = _PLACE,
        negative_prompt: str = NEGATIVE_PROMPT,
        image_shape: Sequence[int] | None = None,
        canvas_size: int | Sequence[int] | None = None,
        scheduler: str | None = None,
        strength: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sample: bool = False,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        tiling: bool | None = None,
    ) -> StableDiffusionCodec:
        """Load the parts of a StableDiffusionPipeline that are needed: no safety checker.

        Parameters
        ----------
        path_or_id : path-like or str
            A folder that ``save_pretrained`` wrote, or the name of a repository of Hugging Face,
            such as ``"stable-diffusion-v1-5/stable-diffusion-v1-5"``, which is fetched unless
            ``HF_HUB_OFFLINE`` is set. Where it has a file ``ddkern_decoding.json``, that gives the
            values of strength, steps and guidance that are not given here.
        scheduler : str, optional
            Another scheduler of diffusers in the place of its own, by class name, with its
            configuration.
        device : str or torch.device
            ``"auto"`` is the first CUDA device, or the CPU without one.
        dtype : {"auto", "float32", "float16", "bfloat16"}
            ``"auto"`` is float16 on a CUDA device and float32 elsewhere.
        class_names, template, negative_prompt, image_shape, canvas_size, strength, steps, guidance,
        sample, batch_size, tiling
            See :class:`StableDiffusionCodec`.

        Raises
        ------
        FileNotFoundError
            If the weights are not there. The message says how to fetch them.
        UnsupportedError
            If diffusers or transformers is not installed, or as :class:`StableDiffusionCodec`.
        TypeError, ValueError
            As :class:`StableDiffusionCodec`.
        """
        diffusers = import_optional("diffusers", _PURPOSE, "diffusion")
        transformers = import_optional("transformers", _PURPOSE, "diffusion")
        _make_prompts(class_names, template)
        checkpoint = find_checkpoint(path_or_id)
        where = choose_device(device)
        number = choose_dtype(dtype, where)
        how = load_decoding(checkpoint, STABLE_DIFFUSION_DECODING).changed(
            strength, steps, guidance
        )
        sampler = load_scheduler(checkpoint, scheduler)
        unet = checkpoint.load(diffusers.UNet2DConditionModel, "unet", torch_dtype=number)
        text_encoder = checkpoint.load(transformers.CLIPTextModel, "text_encoder", dtype=number)
        return cls(
            load_autoencoder(checkpoint, "vae", where, number),
            unet.to(where),
            text_encoder.to(where),
            _load_tokenizer(checkpoint),
            sampler,
            class_names=class_names,
            template=template,
            negative_prompt=negative_prompt,
            image_shape=image_shape,
            canvas_size=canvas_size,
            strength=how.strength,
            steps=how.steps,
            guidance=how.guidance,
            sample=sample,
            batch_size=batch_size,
            tiling=tiling,
        )

    def _predictor(self, labels: NDArray[np.int64], guidance: float) -> Predict:
        unet: Any = self._denoiser
        dtype = self._autoencoder.dtype
        prompts = [self._prompts[label] for label in labels.tolist()]
        is_guided = guidance > 1
        if is_guided:
            prompts = [self._negative_prompt] * len(prompts) + prompts
        context = torch.cat([self._embed(prompt) for prompt in prompts])

        def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            inputs = latents.to(dtype)
            if is_guided:
                inputs = torch.cat([inputs, inputs])
            prediction: torch.Tensor = unet(
                inputs, timestep, encoder_hidden_states=context
            ).sample.float()
            if not is_guided:
                return prediction
            unconditional, conditional = prediction.chunk(2)
            return guided(conditional, unconditional, guidance)

        return predict

    def _embed(self, prompt: str) -> torch.Tensor:
        """The hidden states of a prompt, shape (1, tokens, features), in the type of the U-Net."""
        if prompt not in self._embeddings:
            encoder: Any = self._text_encoder
            tokens, mask = (part.to(encoder.device) for part in self._tokens[prompt])
            uses_mask = getattr(encoder.config, "use_attention_mask", False)
            hidden = encoder(tokens, attention_mask=mask if uses_mask else None)[0]
            self._embeddings[prompt] = hidden.to(self._autoencoder.dtype)
        return self._embeddings[prompt]

    def _models(self) -> dict[str, nn.Module]:
        return {"unet": self._denoiser, "text_encoder": self._text_encoder}

    def _options(self) -> dict[str, Any]:
        tokens = {prompt: tokens[0].tolist() for prompt, (tokens, _) in self._tokens.items()}
        digest = hashlib.sha256(json.dumps(tokens, sort_keys=True).encode()).hexdigest()
        return {
            "prompts": list(self._prompts),
            "negative_prompt": self._negative_prompt,
            "tokens": f"sha256:{digest}",
        }


def _check_unet(unet: Any, vae: Any) -> None:
    diffusers = import_optional("diffusers", _PURPOSE, "diffusion")
    if not isinstance(unet, diffusers.UNet2DConditionModel):
        raise TypeError(f"unet is a {type(unet).__name__}; it must be a UNet2DConditionModel")
    channels = unet.config.in_channels, unet.config.out_channels
    if channels != (vae.config.latent_channels,) * 2:
        raise ValueError(
            f"unet takes latents of {channels[0]} channels and gives {channels[1]}, but vae makes "
            f"{vae.config.latent_channels}; they must be equal"
        )
    for option in ("addition_embed_type", "class_embed_type", "time_cond_proj_dim"):
        if getattr(unet.config, option, None) is not None:
            raise UnsupportedError(
                f"unet has {option}={getattr(unet.config, option)!r}; only U-Nets that need "
                "nothing but a prompt can be used, as those of Stable Diffusion 1 and 2"
            )


def _make_prompts(class_names: Any, template: Any) -> tuple[str, ...]:
    rule = "it must hold a name for each class"
    if isinstance(class_names, (str, bytes)) or not isinstance(class_names, Sequence):
        raise TypeError(f"class_names={class_names!r}; {rule}")
    if not len(class_names):
        raise ValueError(f"class_names is empty; {rule}")
    for label, name in enumerate(class_names):
        if not isinstance(name, str):
            raise TypeError(f"class_names[{label}]={name!r} is a {type(name).__name__}; {rule}")
        if not name.strip():
            raise ValueError(f"class_names[{label}]={name!r}; {rule}")
    if not isinstance(template, str) or _PLACE not in template:
        raise ValueError(f"template={template!r}; it must be a str that holds {_PLACE!r}")
    return tuple(template.replace(_PLACE, name) for name in class_names)


def _load_tokenizer(checkpoint: Checkpoint) -> Any:
    transformers = import_optional("transformers", _PURPOSE, "diffusion")
    # Without a vocabulary, transformers makes an empty one and says nothing.
    if all(checkpoint.read_json(f"tokenizer/{file}") is None for file in _VOCABULARIES):
        raise checkpoint.missing(f"tokenizer/{_VOCABULARIES[0]}")
    return checkpoint.load(transformers.CLIPTokenizer, "tokenizer")


def _tokenize(tokenizer: Any, prompt: str, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask of a prompt, each of shape (1, longest)."""
    found = tokenizer(prompt, padding="max_length", max_length=longest, return_tensors="pt")
    if found.input_ids.shape[1] > longest:
        raise ValueError(
            f"the prompt {prompt!r} has {found.input_ids.shape[1]} tokens; it must have at most "
            f"{longest}"
        )
    return found.input_ids, found.attention_mask
