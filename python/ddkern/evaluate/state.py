# SPDX-License-Identifier: Apache-2.0
"""A folder in which an evaluation keeps what is finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ddkern.evaluate.result import NetworkResult, network_from
from ddkern.files import replaced_when_complete

__all__ = ["EvaluationState"]

_CONDITIONS = "conditions.json"


class EvaluationState:
    """Finished networks in a folder, each in a file that is there complete or not at all.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    conditions : mapping
        All that the numbers depend on, as plain values.

    Raises
    ------
    ValueError
        If the folder belongs to an evaluation under other conditions.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, Any]) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"state={str(folder)!r} is a file; it must be a folder")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _CONDITIONS
        wanted = json.loads(json.dumps(dict(conditions)))
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            for name in sorted({*wanted, *found}):
                if wanted.get(name) != found.get(name):
                    raise ValueError(
                        f"state={str(folder)!r} holds an evaluation with {name}="
                        f"{found.get(name)!r}; this one has {wanted.get(name)!r}. Choose another "
                        "folder, or delete this one"
                    )
        else:
            _write(path, wanted)

    def load(self, index: int) -> NetworkResult | None:
        """What network ``index`` gave, if it is finished."""
        path = self._path(index)
        return network_from(json.loads(path.read_text("utf-8"))) if path.exists() else None

    def save(self, network: NetworkResult) -> None:
        """Keep a finished network."""
        _write(self._path(network.index), asdict(network))

    def _path(self, index: int) -> Path:
        return self.folder / f"network-{index:04d}.json"


def _write(path: Path, content: Any) -> None:
    with replaced_when_complete(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
