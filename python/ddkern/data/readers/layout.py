# SPDX-License-Identifier: Apache-2.0
"""How the parts of a data set are told apart by the names of files, folders and arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["MissingSplitError", "choose_split", "split_in_name", "words_of"]

_SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "t10k": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}

T = TypeVar("T")


def words_of(name: str) -> list[str]:
    """The words of a file name: ``"x_train.npy"`` has x, train and npy."""
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def split_in_name(name: str) -> str | None:
    """``"train"``, ``"validation"`` or ``"test"``, if one of the words in ``name`` means it."""
    for word in words_of(name):
        if word in _SPLIT_OF_WORD:
            return _SPLIT_OF_WORD[word]
    return None


class MissingSplitError(ValueError):
    """A data set has no part of the name that was asked for."""


def choose_split(
    found: Mapping[str | None, T], split: str | None, origin: str
) -> tuple[str | None, T]:
    """The part that the caller asked for.

    Parameters
    ----------
    found : mapping
        What there is for each split; the key None stands for what belongs to no split.
    split : str or None
        None takes the only part there is, or ``"train"`` of several.
    origin : str
        Begins messages.

    Raises
    ------
    MissingSplitError
        If there is no such part.
    ValueError
        If there are several, none of them ``"train"``, and none was asked for.
    """
    named = [name for name in found if name is not None]
    if split is not None:
        wanted = _SPLIT_OF_WORD.get(split, split)
        if wanted in found:
            return wanted, found[wanted]
        has = f"its splits are {', '.join(map(repr, named))}" if named else "it has no splits"
        raise MissingSplitError(f"{origin} has no split {split!r}; {has}")
    if len(found) == 1:
        return next(iter(found.items()))
    if "train" in found:
        return "train", found["train"]
    raise ValueError(f"{origin} has splits {', '.join(map(repr, named))}; choose one with split=")
