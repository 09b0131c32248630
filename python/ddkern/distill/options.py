# SPDX-License-Identifier: Apache-2.0
"""The options of a method as plain values, which a provenance keeps."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Configured", "options_of"]


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


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _digest(value)
    if isinstance(value, Configured):
        return {"name": value.name, **value.options()}
    return value


def _digest(array: NDArray[Any]) -> str:
    head = f"{array.dtype.str} {array.shape}".encode()
    return f"sha256:{hashlib.sha256(head + array.tobytes()).hexdigest()}"
