# SPDX-License-Identifier: Apache-2.0
"""``ddkern distill`` on a disk that is full when a stage begins, and has room again afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

from ddkern.data import DistilledSet
from helpers.bits import assert_same_array_bits

# The last three are what is written when all stages are done.
STAGES = ("prior", "teacher", "encode", "quantize", "decode", "measure", "set", "sheet", "record")

# A disk of its own, small enough to be filled, that only this process and its children see.
ISOLATED = ("unshare", "--user", "--map-root-user", "--mount")

# Runs the command once with room in a folder of its own, then once for each stage, with the last
# byte of the disk taken when the stage begins, and with room again. Prints what was said and what
# was left each time, as JSON.
PROGRAM = """
import contextlib, json, sys
from pathlib import Path
from typer.testing import CliRunner
import ddkern.report
from ddkern.cli import latents, set_files
from ddkern.cli.app import app
from ddkern.distill.stages import StageLog
from ddkern.priors import fit, validation

latents._TEACHER_STEPS = 1
validation._CLASSIFIER_STEPS = 1
fit._SAMPLES_VALIDATED = 1
disk = Path(sys.argv[1])
ballast = disk / "ballast"
state = {"full_at": None}

def fill(stage):
    if stage == state["full_at"]:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 12))

timed, write = StageLog.stage, set_files.SetFiles.write

def stage(log, name):
    fill(name)
    return timed(log, name)

def write_set(files, *arguments):
    fill("set")
    return write(files, *arguments)

draw, write_run = ddkern.report.draw_distilled_set, sys.modules["ddkern.cli.distill"].write_run

def draw_sheet(*arguments):
    fill("sheet")
    return draw(*arguments)

def write_record(*arguments):
    fill("record")
    return write_run(*arguments)

StageLog.stage, set_files.SetFiles.write = stage, write_set
ddkern.report.draw_distilled_set = draw_sheet
sys.modules["ddkern.cli.distill"].write_run = write_record
arguments = ["distill", "--method", "ddoq", "--dataset", "digits", "--ipc", "2", "--effort",
             "0.002", "--teacher", "convnet-d3", "--export", "folder", "--quiet", "--out"]
told = []
for state["full_at"] in [None, *json.loads(sys.argv[2]), None]:
    out = disk / ("run" if told else "undisturbed")
    done = CliRunner().invoke(app, [*arguments, str(out)])
    assert ballast.exists() == (state["full_at"] is not None), "the disk was not filled"
    ballast.unlink(missing_ok=True)
    kept = sorted(str(p.relative_to(out)) for p in out.rglob("*"))
    told.append({"exit_code": done.exit_code, "stderr": done.stderr, "kept": kept})
print(json.dumps(told))
"""


def isolated_disks() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = [*ISOLATED, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not isolated_disks(), reason="a process may not mount a disk of its own here")
def test_every_stage_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    steps = (
        'mount -t tmpfs -o size=64m none "$1"',
        '"$2" -c "$3" "$1" "$4"',
        'cp -r "$1/run" "$1/undisturbed" "$5"',
    )
    done = subprocess.run(
        [
            *(*ISOLATED, "sh", "-e", "-c", "\n".join(steps), "sh"),
            *(str(disk), sys.executable, PROGRAM, json.dumps(STAGES), str(kept)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    undisturbed, *failures, finished = json.loads(done.stdout)
    before: set[str] = set()
    for stage, failure in zip(STAGES, failures, strict=True):
        assert failure["exit_code"] == 1, stage
        assert "No space left on device" in failure["stderr"], (stage, failure)
        assert failure["stderr"].count("\n") == 1, (stage, failure)
        assert ("set.safetensors" in failure["kept"]) == (stage in STAGES[-2:]), stage
        assert "run.json" not in failure["kept"], stage
        # What earlier stages left is still there, and no draft of a file that failed.
        assert before <= {*failure["kept"]}, stage
        drafts = [name for name in failure["kept"] if Path(name).name.startswith(".")]
        assert not drafts, stage
        before = {name for name in failure["kept"] if "work" not in Path(name).parts}
    assert undisturbed["exit_code"] == finished["exit_code"] == 0, (undisturbed, finished)
    assert finished["kept"] == undisturbed["kept"]
    found, expected = (
        DistilledSet.load(kept / run / "set.safetensors") for run in ("run", "undisturbed")
    )
    assert_same_array_bits(found.images, expected.images, "images")
    assert_same_array_bits(found.sample_weight, expected.sample_weight, "weights")
    assert found.soft_labels is not None
    assert expected.soft_labels is not None
    assert_same_array_bits(found.soft_labels, expected.soft_labels, "soft labels")
