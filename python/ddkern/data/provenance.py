# SPDX-License-Identifier: Apache-2.0
"""Where a distilled set comes from: enough to make it again."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddkern import __version__
from ddkern.checks import as_seed
from ddkern.data.dataset import ImageDataset

__all__ = ["Provenance", "as_json"]

_PACKAGES = ("numpy", "torch", "diffusers", "transformers")


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a distilled set was made.

    Attributes
    ----------
    method : str
        Name of the method, ``""`` if unknown.
    options : mapping
        Everything that was passed to it: plain values (JSON).
    random_state : int or None
        The seed.
    source, source_split, source_hash : str
        The data set that was distilled, its split, and its
        :meth:`ddkern.data.ImageDataset.fingerprint`.
    protocol : str
        Identifier of the evaluation protocol that the set was made for.
    versions : mapping from str to str
        Versions of Python, ddkern and the packages that compute.
    commit : str or None
        The commit of ddkern's sources, with ``-dirty`` after it where they were changed; None
        where they do not lie in a repository.
    """

    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    random_state: int | None = None
    source: str = ""
    source_split: str = ""
    source_hash: str = ""
    protocol: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None

    def __post_init__(self) -> None:
        for name in ("method", "source", "source_split", "source_hash", "protocol"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TypeError(f"{name}={value!r} is a {type(value).__name__}; it must be a str")
        if self.random_state is not None:
            as_seed("random_state", self.random_state)
        for name in ("options", "versions"):
            object.__setattr__(self, name, as_json(name, getattr(self, name)))

    @classmethod
    def record(
        cls,
        method: str,
        options: Mapping[str, Any],
        *,
        random_state: int,
        source: ImageDataset | None = None,
        source_hash: str = "",
        protocol: str = "",
    ) -> Provenance:
        """The provenance of a set that is made here and now.

        Parameters
        ----------
        method : str
        options : mapping
        random_state : int
        source : ImageDataset, optional
            Read once, for its fingerprint, unless that is given.
        source_hash : str
        protocol : str
        """
        return cls(
            method=method,
            options=options,
            random_state=random_state,
            source="" if source is None else source.name,
            source_split="" if source is None else source.split or "",
            source_hash="" if source is None else source_hash or source.fingerprint(),
            protocol=protocol,
            versions=_versions(),
            commit=_commit(Path(__file__).resolve().parent),
        )


def as_json(name: str, value: Any) -> dict[str, Any]:
    """A mapping as a file will give it back: with lists for tuples and strings for keys.

    Raises
    ------
    TypeError, ValueError
        If an entry cannot be written as JSON. The message names it.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be a mapping")
    return {str(key): _plain(f"{name}[{key!r}]", entry) for key, entry in value.items()}


def _plain(name: str, entry: Any) -> Any:
    try:
        return json.loads(json.dumps(entry, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}={entry!r} cannot be written as JSON: {error}") from error


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "ddkern": __version__}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _commit(folder: Path) -> str | None:
    """The commit that ``folder``'s files belong to, if they are tracked by git."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str | None:
        done = subprocess.run(
            [git, "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside somebody else's repository, which does not track it.
    if ask("ls-files", "--error-unmatch", "provenance.py") is None:
        return None
    commit = ask("rev-parse", "HEAD")
    changed = ask("status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changed else commit
