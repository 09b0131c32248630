# SPDX-License-Identifier: Apache-2.0
"""Packages that parts of ddkern need and that ``pip install ddkern`` does not bring."""

from __future__ import annotations

import importlib
from typing import Any

from ddkern.errors import UnsupportedError

__all__ = ["import_optional"]


def import_optional(module: str, purpose: str, extra: str) -> Any:
    """Import a module of an optional package, or say what it is needed for and how to get it.

    Parameters
    ----------
    module : str
        Dotted name, such as ``"pyarrow.parquet"``.
    purpose : str
        Begins the message: ``"reading parquet files"``.
    extra : str
        The extra of ddkern that brings the package.

    Raises
    ------
    UnsupportedError
        If the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".", maxsplit=1)[0]
        raise UnsupportedError(
            f"{purpose} needs the package {package} (pip install 'ddkern[{extra}]')"
        ) from error
