# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear complete or not at all.

A process that dies while it writes leaves what was there before: everything is written beside its
place under another name (``.name.<random>``) and moved there at the end, in one step of the file
system. Such a draft may stay behind a killed process; it never has the name that readers look for.

A folder that long work goes on in is reserved for one process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["folder_when_complete", "replaced_when_complete", "reserved"]

_LOCK = ".lock"
# What file systems without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


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


@contextlib.contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Keep other processes from ``folder``, made where it is not there, for the time of the block.

    The system gives the lock back with the process, however that ends; the file of no bytes that
    it is kept by stays. Where there are no such locks, as on some network file systems, nobody is
    kept away.

    Raises
    ------
    BlockingIOError
        If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"another process is at work in {str(folder)!r}; wait for it, or use another "
                    "folder"
                ) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
        yield


def _draft_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.urandom(8).hex()}")
