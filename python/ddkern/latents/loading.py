# SPDX-License-Identifier: Apache-2.0
"""The codec for a folder, a file or a repository of Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddkern.errors import UnsupportedError
from ddkern.latents.codec import Codec
from ddkern.latents.pca import PcaCodec
from ddkern.optional import import_optional

__all__ = ["load_codec"]

_PURPOSE = "a codec of diffusers"
_STABLE_DIFFUSION = ("StableDiffusionImg2ImgPipeline", "StableDiffusionPipeline")


def load_codec(
    path_or_id: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> Codec:
    """Load a codec of whichever kind it is.

    Parameters
    ----------
    path_or_id : path-like or str
        A file of :class:`ddkern.latents.PcaCodec`; a folder that ``save_pretrained`` of diffusers
        wrote, of a DiTPipeline, a StableDiffusionPipeline or an autoencoder; or the name of a
        repository of Hugging Face with one of these.
    class_names : sequence of str, optional
        Of the data set: whether the codec can decode these classes is checked. Needed for the
        prompts of Stable Diffusion.
    **options
        Of the codec's ``from_pretrained``. A file takes none.

    Returns
    -------
    Codec

    Raises
    ------
    FileNotFoundError
        If it is not there. The message says how to fetch the weights.
    UnsupportedError
        If it is a pipeline or a model of another kind, or a package is not installed.
    TypeError, ValueError
        If an argument breaks its rule.
    """
    if Path(path_or_id).is_file():
        if options:
            raise TypeError(
                f"{next(iter(options))} is given, but the codec of a file has no options"
            )
        return _checked(PcaCodec.load(path_or_id), class_names)
    import_optional("torch", _PURPOSE, "diffusion")
    from ddkern.latents.autoencoder import AUTOENCODERS, AutoencoderCodec
    from ddkern.latents.checkpoint import find_checkpoint
    from ddkern.latents.dit import DitCodec
    from ddkern.latents.stable_diffusion import StableDiffusionCodec

    checkpoint = find_checkpoint(path_or_id)
    index = checkpoint.read_json("model_index.json") or checkpoint.read_json("config.json")
    if index is None:
        raise checkpoint.missing("model_index.json or config.json")
    kind = index.get("_class_name")
    if kind in _STABLE_DIFFUSION:
        if class_names is None:
            raise ValueError("class_names=None; Stable Diffusion needs them for its prompts")
        return StableDiffusionCodec.from_pretrained(path_or_id, class_names=class_names, **options)
    if kind == "DiTPipeline":
        return _checked(DitCodec.from_pretrained(path_or_id, **options), class_names)
    if kind in AUTOENCODERS:
        return _checked(AutoencoderCodec.from_pretrained(path_or_id, **options), class_names)
    known = ("DiTPipeline", *_STABLE_DIFFUSION, *AUTOENCODERS)
    raise UnsupportedError(
        f"{checkpoint.name!r} holds a {kind}; there are codecs for {', '.join(known)}"
    )


def _checked(codec: Codec, class_names: Sequence[str] | None) -> Codec:
    if class_names is not None:
        codec.check_classes(tuple(class_names))
    return codec
