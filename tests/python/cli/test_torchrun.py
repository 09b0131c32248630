# SPDX-License-Identifier: Apache-2.0
"""``torchrun ... ddkern distill``: several processes make what one makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

# Prior and teacher that are hardly trained, the same here and there.
SHORT = {
    "latents._TEACHER_STEPS": 1,
    "fit._SAMPLES_VALIDATED": 1,
    "validation._CLASSIFIER_STEPS": 1,
}
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
    *("--nproc-per-node", "2"),
)
PROGRAM = "\n".join(
    [
        "from ddkern.cli import latents, main",
        "from ddkern.priors import fit, validation",
        *(f"{name} = {value}" for name, value in SHORT.items()),
        "main()",
    ]
)


@pytest.mark.slow
def test_two_processes_give_the_file_of_one(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from ddkern.cli import latents
    from ddkern.priors import fit, validation

    modules = {"latents": latents, "fit": fit, "validation": validation}
    for name, value in SHORT.items():
        module, attribute = name.split(".")
        monkeypatch.setattr(modules[module], attribute, value)
    arguments = ("distill", "--method", "ddoq", "--dataset", "digits", "--ipc", 4, "--quiet")
    settings = ("--effort", 0.002, "--teacher", "convnet-d3", "--out")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        done = run(*arguments, *settings, tmp_path / "one")
    finally:
        torch.set_num_threads(threads)
    assert done.exit_code == 0, (done.stderr, done.exception)
    (tmp_path / "program.py").write_text(PROGRAM)
    both = subprocess.run(
        [
            *(*TORCHRUN, str(tmp_path / "program.py")),
            *map(str, (*arguments, *settings, tmp_path / "two")),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert both.returncode == 0, both.stderr
    one, two = ((tmp_path / name / "set.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert both.stdout.count("set.safetensors") == 1, "one of them speaks"
    assert (tmp_path / "two" / "stages-1" / "encode.json").exists()
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two")]
    for record in records:
        record["stages"] = [stage["name"] for stage in record["stages"]]
        record["command"] = record["command"].replace("/two", "/one")
    assert records[0] == records[1]


@pytest.mark.slow
def test_an_error_is_told_in_a_line(tmp_path: Path) -> None:
    digits = ("distill", "--method", "ddoq", "--dataset", "digits", "--prior", "none", "--ipc", "2")
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "from ddkern.cli import main\n"
        "from ddkern.distill.latent_sets import LatentRun\n"
        "def fail(*_):\n"
        "    raise ValueError('no codebook')\n"
        "LatentRun._save_codebook = fail\n"
        "main()\n"
    )
    done = subprocess.run(
        [*TORCHRUN, str(tmp_path / "program.py"), *digits, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    assert done.stderr.count("error: no codebook\n") == 1
    assert "broadcast" not in done.stderr
