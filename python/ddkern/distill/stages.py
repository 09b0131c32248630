# SPDX-License-Identifier: Apache-2.0
"""The stages of a long distillation: what is kept of each, and how long it took."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ddkern.files import replaced_when_complete

__all__ = ["StageLog", "digest_of"]

_FOLDER = "stages"


class StageLog:
    """Seconds and figures of each stage, in ``stages/<name>.json`` of a run folder.

    Parameters
    ----------
    folder : Path
    rank : int
        Of the process, where several share the stages; those after the first one keep a log of
        their own.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self._folder = folder / (_FOLDER if rank == 0 else f"{_FOLDER}-{rank}")

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a stage; what the block puts into the dictionary is kept with it.

        An interrupted stage counts when it goes on: seconds add up over the calls that worked on
        it. A stage that finds its work done adds what looking took.
        """
        path = self._folder / f"{name}.json"
        before = _read(path)
        detail: dict[str, Any] = dict(before.get("detail", {}))
        start = time.perf_counter()
        try:
            yield detail
        finally:
            self._folder.mkdir(parents=True, exist_ok=True)
            seconds = before.get("seconds", 0.0) + time.perf_counter() - start
            order = before.get("order", len(list(self._folder.glob("*.json"))))
            content = {"name": name, "order": order, "seconds": seconds, "detail": detail}
            with replaced_when_complete(path) as file:
                file.write((json.dumps(content, indent=1) + "\n").encode())

    def read(self) -> list[dict[str, Any]]:
        """All stages in the order in which they began: name, seconds, detail."""
        found = sorted(map(_read, self._folder.glob("*.json")), key=lambda entry: entry["order"])
        return [{name: entry[name] for name in ("name", "seconds", "detail")} for entry in found]


def digest_of(conditions: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that tell conditions apart in the names of files."""
    text = json.dumps(dict(conditions), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content
