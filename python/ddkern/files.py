# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear complete or not at all.

A process that dies while it writes leaves what was there before: everything is written beside its
place under another name (``.name.<random>``) and moved there at the end, in one step of the file
system. Such a draft may stay behind a killed process; it never has the name that readers look for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["folder_when_complete", "replaced_when_complete"]


@contextlib.contextmanager
def replaced_when_complete(target: Path) -> Iterator[IO[bytes]]:
    """A file beside ``target`` that takes its place when the block ends without an exception."""
    draft = _draft_of(target)
    try:
        with draft.open("xb") as file:
            yield file
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def folder_when_complete(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its name when the block ends without an exception.

    Raises
    ------
    FileExistsError
        If ``target`` exists and is not an empty folder: a folder cannot be exchanged in one step,
        and files of two exports must not mix.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(
            f"{target} exists already; an export needs a folder that is new or empty"
        )
    draft = _draft_of(target)
    try:
        draft.mkdir()
        yield draft
        draft.replace(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _draft_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.urandom(8).hex()}")
