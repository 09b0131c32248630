# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ddkern import __version__
from ddkern.__main__ import main


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ddkern", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_prints_the_configuration() -> None:
    done = _run()
    assert done.returncode == 0
    assert done.stdout.startswith("ddkern ")
    assert __version__ in done.stdout
    assert done.stderr == ""


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ddkern"] == __version__


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--help"])
    assert exit_info.value.code == 0
    assert "python -m ddkern" in capsys.readouterr().out


def test_forced_level_is_shown() -> None:
    shown = json.loads(_run("--json", DDKERN_ISA="base").stdout)
    assert shown["isa"]["active"] == "base"
    assert shown["isa"]["forced"] == "base"


def test_unknown_level_is_told_not_raised() -> None:
    shown = json.loads(_run("--json", DDKERN_ISA="sse9").stdout)
    assert shown["isa"]["active"] is None
    assert "sse9" in shown["isa"]["error"]


def test_openmp_limit_is_obeyed() -> None:
    shown = json.loads(_run("--json", OMP_NUM_THREADS="1").stdout)
    assert shown["threads"]["max"] == 1
    assert shown["threads"]["OMP_NUM_THREADS"] == "1"
