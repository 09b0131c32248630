# SPDX-License-Identifier: Apache-2.0
"""Evaluations that are killed and interrupted, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
pytest.importorskip("torch")

# Long enough for a signal to arrive while the second network is trained.
PROGRAM = """
import signal
from dataclasses import replace
from ddkern.cli import main
from ddkern.evaluate import get_protocol, protocols
# Whoever started the tests may have it ignored, as shells do for what runs in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
model = get_protocol("E1-dc")
protocols._PROTOCOLS += (replace(
    model, id="short", recipe=replace(model.recipe, epochs=80),
    model_options=(("width", 4),), n_networks=3,
),)
main()
"""


def start(made: Path, state: Path) -> subprocess.Popen[str]:
    arguments = ("evaluate", made, "--dataset", "digits", "--protocol", "short", "--threads", 1)
    rest = ("--state", state, "--precision", "float32", "--device", "cpu", "--quiet", "--json")
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, (*arguments, *rest))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    networks: list[dict[str, Any]] = json.loads(out)["networks"]
    return networks


def stop_in_second_network(process: subprocess.Popen[str], state: Path, number: int) -> str:
    """Send a signal as soon as the first network is kept; returns standard error."""
    deadline = time.monotonic() + 300
    while not (state / "network-0000.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    out, errors = process.communicate(timeout=300)
    assert out == ""
    assert not (state / "network-0002.json").exists(), "the signal came too late to tell anything"
    return errors


def without_time(networks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in n.items() if k != "seconds"} for n in networks]


@pytest.mark.slow
def test_killed_evaluation_goes_on(made: Path, tmp_path: Path) -> None:
    state = tmp_path / "killed"
    process = start(made, state)
    stop_in_second_network(process, state, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = (state / "network-0000.json").read_bytes()
    written = (state / "network-0000.json").stat().st_mtime_ns
    resumed = finish(start(made, state))
    assert (state / "network-0000.json").read_bytes() == kept
    assert (state / "network-0000.json").stat().st_mtime_ns == written
    assert resumed[0] == json.loads(kept)
    whole = finish(start(made, tmp_path / "whole"))
    assert without_time(resumed) == without_time(whole)


@pytest.mark.slow
def test_interrupted_evaluation_says_how_to_go_on(made: Path, tmp_path: Path) -> None:
    process = start(made, tmp_path / "state")
    errors = stop_in_second_network(process, tmp_path / "state", signal.SIGINT)
    assert process.returncode == 130
    assert errors == "interrupted; repeat the command to go on from network 2 of 3\n"
