# SPDX-License-Identifier: Apache-2.0
"""Result files: one JSON document a run, complete enough to repeat and to judge it."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from pathlib import Path
from typing import Any

from bench import machine

SCHEMA = 1
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def new(suite: str, threads: int, command: str) -> dict[str, Any]:
    """Return the head of a document; the runner adds implementations, probes and lines."""
    return {
        "schema": SCHEMA,
        "suite": suite,
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "threads": threads,
        **_commit(),
        "machine": machine.describe(),
        "probes": [],
        "implementations": {},
        "absent": {},
        "lines": [],
    }


def write(document: dict[str, Any], path: Path) -> None:
    """Write the document in one step: an interrupted run leaves the lines it finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_rounded(document), indent=1) + "\n")
    partial.replace(path)


def read_all(folder: Path) -> list[dict[str, Any]]:
    """Read every document of a folder, oldest first.

    Raises
    ------
    ValueError
        For a document of another schema.
    """
    documents = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        if document.get("schema") != SCHEMA:
            raise ValueError(
                f"{path} has schema {document.get('schema')!r}; this code reads {SCHEMA}"
            )
        documents.append(document)
    return sorted(documents, key=lambda document: str(document["date"]))


def _rounded(value: Any) -> Any:
    # Nine digits keep every comparison the report makes and none of the noise below them.
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _commit() -> dict[str, Any]:
    head = _git("rev-parse", "HEAD")
    # Only what can change a timing makes a tree dirty: results and pages are written by runs.
    changes = _git("status", "--porcelain", "--", ".", ":!bench/results", ":!docs", ":!README.md")
    return {"commit": head, "dirty": bool(changes) if head else None}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
