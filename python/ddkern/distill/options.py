# SPDX-License-Identifier: Apache-2.0
"""The options of a method as plain values, which a provenance keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count, as_fraction, as_number, check_choice

if TYPE_CHECKING:
    from ddkern.augment import DSA

__all__ = [
    "INITS",
    "Configured",
    "check_learning",
    "default_augment",
    "learning_options",
    "options_of",
]


INITS = ("real", "k-means", "noise")
"""Where learned images may begin."""


@runtime_checkable
class Configured(Protocol):
    """Something with a name and options that a file can keep.

    Attributes
    ----------
    name : str
        The same for all objects of a class.
    """

    name: ClassVar[str]

    def options(self) -> dict[str, Any]:
        """All options as plain values (JSON)."""


def options_of(record: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain values.

    An array becomes a digest of its values: it may have an entry for every image of a data set.
    Something :class:`Configured` becomes its options with its name among them.
    """
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record)}


def default_augment() -> DSA:
    """The augmentation of all published results; torch is needed from here on."""
    from ddkern.augment import DSA

    return DSA()


def check_learning(method: Any, *, counts: Sequence[str], rates: Sequence[str]) -> None:
    """Check the fields of a method that learns images, and make numbers of them.

    Parameters
    ----------
    method : dataclass
        Also has ``momentum``, ``init`` and ``folder``.
    counts : sequence of str
        Fields that are integers of at least 1, or None.
    rates : sequence of str
        Fields that are finite numbers of at least 0.

    Raises
    ------
    TypeError, ValueError
        If a field breaks its rule.
    """
    values: dict[str, Any] = {}
    for name in counts:
        if getattr(method, name) is not None:
            values[name] = as_count(name, getattr(method, name))
    for name in rates:
        values[name] = as_number(name, getattr(method, name), at_least=0)
    values["momentum"] = as_fraction("momentum", method.momentum)
    check_choice("init", method.init, INITS)
    if method.folder is not None:
        values["folder"] = Path(method.folder)
    for name, value in values.items():
        object.__setattr__(method, name, value)


# Fields that change nothing in the result.
_OF_NO_EFFECT = ("device", "folder", "looks")


def learning_options(method: Any) -> dict[str, Any]:
    """The fields of a method that learns images, records in them described, as plain values."""
    from ddkern.training.recipe import describe

    return {
        field.name: describe(getattr(method, field.name))
        for field in fields(method)
        if field.name not in _OF_NO_EFFECT
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _digest(value)
    if isinstance(value, Configured):
        return {"name": value.name, **value.options()}
    return value


def _digest(array: NDArray[Any]) -> str:
    head = f"{array.dtype.str} {array.shape}".encode()
    return f"sha256:{hashlib.sha256(head + array.tobytes()).hexdigest()}"
