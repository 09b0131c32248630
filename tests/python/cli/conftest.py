# SPDX-License-Identifier: Apache-2.0
"""The command line in this process, on digits, with a protocol that takes a moment.

Packages are imported by the fixtures: a test module whose packages are missing skips itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def run() -> Run:
    """Run ``ddkern`` with these arguments; the result has exit_code, stdout, stderr, exception."""
    from typer.testing import CliRunner

    from ddkern.cli.app import app

    def call(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def fails(run: Run) -> Callable[..., str]:
    """Run ``ddkern``, which must fail by one line on standard error; return that line."""

    def call(*arguments: object) -> str:
        done = run(*arguments)
        assert done.exit_code == 1, (done.stdout, done.stderr, done.exception)
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ")
        return str(done.stderr[len("error: ") : -1])

    return call


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The file of a set with two weighted images of each digit."""
    from ddkern.data import open_dataset
    from ddkern.distill import KMeansNearest, distill

    path = tmp_path / "pairs.safetensors"
    distill(open_dataset("digits"), KMeansNearest(ipc=2), random_state=0).save(path)
    return path


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a protocol of a few epochs and three narrow networks."""
    from ddkern.evaluate import get_protocol, protocols

    model = get_protocol("E1-dc")
    protocol = replace(
        model,
        id="short",
        title="a few epochs",
        recipe=replace(model.recipe, epochs=4),
        model_options=(("width", 8),),
        n_networks=3,
    )
    monkeypatch.setattr(protocols, "_PROTOCOLS", (*protocols._PROTOCOLS, protocol))
    return "short"
