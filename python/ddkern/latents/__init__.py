# SPDX-License-Identifier: Apache-2.0
"""Codecs: images to latents, in which means make sense, and latents to images.

Importing this package needs numpy alone; what needs torch and diffusers imports them when it is
first used: ``pip install ddkern[diffusion]``.

Public names
------------
Codec, check_codec
    What a codec is.
load_codec
    The codec for a folder, a file or a repository of Hugging Face.
IdentityCodec, PcaCodec
    Pixels as they are, and their principal components.
AutoencoderCodec
    An autoencoder of diffusers, without diffusion.
DitCodec, StableDiffusionCodec
    Autoencoders whose latents are diffused and denoised, given a class or a prompt.
Decoding, DECODING_FILE
    Strength, steps and guidance, and the file of a folder that has its own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ddkern.latents.codec import Codec, check_codec
from ddkern.latents.decoding import DECODING_FILE, Decoding
from ddkern.latents.identity import IdentityCodec
from ddkern.latents.loading import load_codec
from ddkern.latents.pca import PcaCodec

if TYPE_CHECKING:
    from ddkern.latents.autoencoder import AutoencoderCodec
    from ddkern.latents.dit import DitCodec
    from ddkern.latents.stable_diffusion import StableDiffusionCodec

__all__ = [
    "DECODING_FILE",
    "AutoencoderCodec",
    "Codec",
    "Decoding",
    "DitCodec",
    "IdentityCodec",
    "PcaCodec",
    "StableDiffusionCodec",
    "check_codec",
    "load_codec",
]

_ON_TORCH = {
    "AutoencoderCodec": "autoencoder",
    "DitCodec": "dit",
    "StableDiffusionCodec": "stable_diffusion",
}


def __getattr__(name: str) -> Any:
    if name in _ON_TORCH:
        from ddkern.optional import import_optional

        import_optional("torch", name, "diffusion")
        return getattr(importlib.import_module(f"ddkern.latents.{_ON_TORCH[name]}"), name)
    raise AttributeError(f"module 'ddkern.latents' has no attribute {name!r}")
