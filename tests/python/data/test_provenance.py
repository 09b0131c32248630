# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern.data import Provenance
from ddkern.data.provenance import _commit


def test_what_is_recorded() -> None:
    made = Provenance.record("dm", {"ipc": 10, "sizes": (1, 2)}, random_state=3, protocol="E1-dsa")
    assert (made.method, made.random_state, made.protocol) == ("dm", 3, "E1-dsa")
    assert made.options == {"ipc": 10, "sizes": [1, 2]}
    assert made.versions["ddkern"] == ddkern.__version__
    assert made.versions["numpy"] == np.__version__
    assert made.source_hash == ""


def test_the_source_is_recorded_with_its_fingerprint() -> None:
    pytest.importorskip("sklearn")
    source = ddkern.data.open_dataset("digits", split="test")
    made = Provenance.record("dm", {}, random_state=0, source=source)
    assert (made.source, made.source_split) == ("digits", "test")
    assert made.source_hash == source.fingerprint()


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_commit_of_tracked_sources(tmp_path: Path) -> None:
    try:
        _git(tmp_path, "init", "-q")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    (tmp_path / "other").write_text("somebody else's")
    _git(tmp_path, "add", "other")
    _git(tmp_path, "commit", "-q", "-m", "other")
    source = tmp_path / "provenance.py"
    source.write_text("first")
    assert _commit(tmp_path) is None  # a repository that does not track the file
    _git(tmp_path, "add", "provenance.py")
    _git(tmp_path, "commit", "-q", "-m", "first")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert _commit(tmp_path) == commit
    source.write_text("second")
    assert _commit(tmp_path) == f"{commit}-dirty"


def test_no_repository(tmp_path: Path) -> None:
    assert _commit(tmp_path) is None


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"method": 3}, TypeError, "method=3 is a int; it must be a str"),
        ({"random_state": -1}, ValueError, "random_state=-1"),
        ({"options": [1]}, TypeError, "options is a list; it must be a mapping"),
        ({"options": {"net": print}}, TypeError, r"options\['net'\]=.* cannot be written as JSON"),
        ({"options": {"a": [np.nan]}}, ValueError, r"options\['a'\]=\[nan\] cannot be written"),
    ],
)
def test_bad_fields(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Provenance(**fields)
