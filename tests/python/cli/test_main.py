# SPDX-License-Identifier: Apache-2.0
"""The program itself: what it loads, how it ends, what becomes of errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

for _package in ("typer", "rich", "safetensors", "sklearn", "PIL"):
    pytest.importorskip(_package)

from ddkern import __version__  # noqa: E402
from ddkern.data import DistilledSet  # noqa: E402

START = "from ddkern.cli import main; main()"


def program(*arguments: object, before: str = "", cwd: Path | None = None, after: str = ""):
    text = f"import sys\n{before}\ntry:\n    {START}\nfinally:\n    {after or 'pass'}"
    return subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=cwd,
    )


@pytest.mark.parametrize(
    "arguments",
    [("--help",), *((name, "--help") for name in ("distill", "evaluate", "inspect", "report"))],
)
def test_help_loads_neither_torch_nor_numpy(arguments: tuple[str, ...]) -> None:
    heavy = ("torch", "numpy", "PIL", "sklearn", "safetensors", "pyarrow", "ddkern.distill")
    report = f"print('loaded', [name for name in {heavy!r} if name in sys.modules])"
    done = program(*arguments, after=report)
    assert done.returncode == 0, done.stderr
    assert "Usage: ddkern" in done.stdout
    assert done.stdout.endswith("loaded []\n")


def test_importing_the_package_loads_no_typer() -> None:
    text = "import sys, ddkern.cli; print('typer' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_missing_package_is_told(package: str) -> None:
    done = program("--help", before=f"sys.modules[{package!r}] = None")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: the command ddkern needs the package {package} (pip install 'ddkern[cli]')\n"
    )


def test_distill_in_a_process_of_its_own(tmp_path: Path) -> None:
    arguments = ("distill", "--method", "k-means", "--dataset", "digits", "--ipc", 1)
    done = program(*arguments, "--out", "made", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["set"] == "made/set.safetensors"
    assert "10 of 10 classes" in done.stderr
    assert len(DistilledSet.load(tmp_path / "made" / "set.safetensors")) == 10
    again = program(*arguments, "--out", "made", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == ("error: made/set.safetensors exists already; --force replaces it\n")


def test_entry_point_is_this_function() -> None:
    pyproject = Path(__file__).resolve().parents[3] / "pyproject.toml"
    assert re.search(
        r'^\[project\.scripts\]\nddkern = "ddkern\.cli:main"$', pyproject.read_text(), re.MULTILINE
    )


def test_version(run) -> None:
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, f"ddkern {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("distill",),
        ("distill", "--method", "random", "--dataset", "digits", "--out", "x", "--ipc", "many"),
        ("evaluate", "--dataset", "digits"),
        ("inspect", "x", "--nonsense"),
    ],
)
def test_usage_errors_end_with_2(run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_debug_shows_the_traceback(run, tmp_path: Path) -> None:
    missing = tmp_path / "gone.safetensors"
    quiet = run("inspect", missing)
    assert isinstance(quiet.exception, SystemExit)
    assert isinstance(run("--debug", "inspect", missing).exception, FileNotFoundError)


def test_traceback_on_request_only(tmp_path: Path) -> None:
    shown = program("--debug", "inspect", tmp_path / "gone.safetensors")
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr


def test_fault_of_ours_keeps_its_traceback(run, monkeypatch: pytest.MonkeyPatch, made) -> None:
    def broken(*_: object) -> None:
        raise KeyError("inner")

    monkeypatch.setattr("ddkern.cli.sets.describe_set", broken)
    assert isinstance(run("inspect", made).exception, KeyError)


def test_interrupt_ends_with_130(run, monkeypatch: pytest.MonkeyPatch, made) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ddkern.cli.sets.describe_set", stop)
    done = run("inspect", made)
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


def test_error_of_several_lines_becomes_one(fails, monkeypatch: pytest.MonkeyPatch, made) -> None:
    def broken(*_: object) -> None:
        raise ValueError("first\nsecond")

    monkeypatch.setattr("ddkern.cli.sets.describe_set", broken)
    assert fails("inspect", made) == "first second"
