# SPDX-License-Identifier: Apache-2.0
"""Weights and configurations of diffusers: in a folder, or in the cache of Hugging Face."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddkern.latents.decoding import DECODING_FILE, Decoding
from ddkern.optional import import_optional

__all__ = ["Checkpoint", "find_checkpoint", "load_decoding"]


_PURPOSE = "a checkpoint of Hugging Face"


# What loading a repository fetches.
_SIZES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "about 4.3 GB, without the safety checker",
    "facebook/DiT-XL-2-256": "about 3.1 GB, with the autoencoder",
    "stabilityai/sd-vae-ft-mse": "about 0.35 GB",
    "madebyollin/taesd": "about 10 MB",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the parts of a model are read from.

    Attributes
    ----------
    name : str
        A folder, or the name of a repository of Hugging Face.
    is_folder : bool
    """

    name: str
    is_folder: bool

    def read_json(self, file: str) -> Any:
        """The content of a file, such as ``"model_index.json"``; None where there is none.

        Raises
        ------
        ValueError
            If it is no JSON.
        """
        path = Path(self.name) / file if self.is_folder else self._cached(file)
        if path is None or not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from error

    def load(self, kind: Any, part: str | None = None, **options: Any) -> Any:
        """A model, scheduler or tokenizer.

        Parameters
        ----------
        kind : class of diffusers or transformers
        part : str or None
            The folder of it; None for the checkpoint's own.
        **options
            Of ``kind.from_pretrained``.

        Raises
        ------
        FileNotFoundError
            If its files are not there. The message says what to fetch, and how.
        """
        if part is not None:
            options["subfolder"] = part
        is_read = self.is_folder or _is_offline()
        try:
            with _bars_of_transformers(drawn=not is_read), warnings.catch_warnings():
                # diffusers still gives huggingface_hub what that no longer takes.
                warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument is depre")
                return kind.from_pretrained(self.name, local_files_only=is_read, **options)
        except OSError as error:
            raise self.missing(part or kind.__name__) from error

    def missing(self, what: str) -> FileNotFoundError:
        """The error that says that something is not there, and how to get it."""
        if self.is_folder:
            return FileNotFoundError(f"folder {self.name!r} has no {what} that could be read")
        reason = " because HF_HUB_OFFLINE is set" if _is_offline() else ""
        size = _SIZES.get(self.name, "size unknown")
        return FileNotFoundError(
            f"{what} of {self.name!r} is neither in a folder of that name nor in the cache of "
            f"Hugging Face on this machine, and could not be fetched{reason}. Where there is a "
            f"network, loading it without HF_HUB_OFFLINE fetches what is needed ({size}), and "
            f"'hf download {self.name}' all that there is"
        )

    def _cached(self, file: str) -> Path | None:
        hub = import_optional("huggingface_hub", _PURPOSE, "diffusion")
        try:
            return Path(hub.hf_hub_download(self.name, file, local_files_only=_is_offline()))
        except OSError:
            return None


def find_checkpoint(path_or_id: str | os.PathLike[str]) -> Checkpoint:
    """A folder where there is one of that name, and the name of a repository otherwise.

    Parameters
    ----------
    path_or_id : path-like or str
        ``"owner/name"`` may be either.

    Raises
    ------
    TypeError
        If it is something else.
    FileNotFoundError
        If it can only be a folder, and there is none.
    """
    if not isinstance(path_or_id, (str, os.PathLike)):
        raise TypeError(
            f"path_or_id is a {type(path_or_id).__name__}; it must be a folder or the name of a "
            "repository of Hugging Face"
        )
    name = os.fspath(path_or_id)
    if name and Path(name).is_dir():
        return Checkpoint(name, is_folder=True)
    owner, slash, rest = name.partition("/")
    is_id = bool(owner.strip(".~") and slash and rest) and "/" not in rest
    if isinstance(path_or_id, os.PathLike) or not is_id:
        raise FileNotFoundError(
            f"path_or_id={name!r}; there is no such folder, and a repository of Hugging Face is "
            "called owner/name"
        )
    return Checkpoint(name, is_folder=False)


def load_decoding(checkpoint: Checkpoint, default: Decoding) -> Decoding:
    """``default``, but what a file of the checkpoint says instead, where there is one.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    content = checkpoint.read_json(DECODING_FILE)
    if content is None:
        return default
    return default.changed_by_file(content, f"{DECODING_FILE} of {checkpoint.name!r}")


@contextlib.contextmanager
def _bars_of_transformers(*, drawn: bool) -> Iterator[None]:
    """Whether transformers, where it is loaded, may draw a bar for a model meanwhile."""
    log = sys.modules.get("transformers.utils.logging")
    if drawn or log is None or not log.is_progress_bar_enabled():
        yield
        return
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.enable_progress_bar()


def _is_offline() -> bool:
    hub = import_optional("huggingface_hub.constants", _PURPOSE, "diffusion")
    return bool(hub.HF_HUB_OFFLINE)
