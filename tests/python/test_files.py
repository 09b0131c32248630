# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ddkern.files import folder_when_complete, replaced_when_complete, reserved


def test_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with replaced_when_complete(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with replaced_when_complete(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exists", [False, True])
def test_folder_appears_at_the_end(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "tree"
    if exists:
        folder.mkdir()
    with folder_when_complete(folder) as draft:
        (draft / "a").write_text("1")
        assert not folder.exists() or not any(folder.iterdir())
    assert [item.name for item in folder.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [folder]


def test_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with folder_when_complete(tmp_path / "t") as draft:
            (draft / "a").write_text("1")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_folder_is_not_mixed_with_what_is_there(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "t"
    if kind == "file":
        target.write_text("mine")
    else:
        (target / "mine").mkdir(parents=True)
    with (
        pytest.raises(FileExistsError, match=r"t exists already; .* new or empty"),
        folder_when_complete(target),
    ):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == [target]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    program = (
        "import sys; from pathlib import Path; from ddkern.files import reserved\n"
        "with reserved(Path(sys.argv[1])): print('mine')"
    )

    def another() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with reserved(folder):
        kept_away = another()
    assert f"BlockingIOError: another process is at work in '{folder}'" in kept_away.stderr
    assert another().stdout == "mine\n"
    with pytest.raises(KeyError), reserved(folder):
        raise KeyError
    assert another().stdout == "mine\n"
