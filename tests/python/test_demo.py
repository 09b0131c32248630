# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ddkern import demo

METHODS = ["ddoq", "d4m", "k-means", "random", "whole"]


def commands(out: Path) -> list[list[str]]:
    return list(demo.commands(out, effort=0.5, networks=2))


def test_every_set_is_made_before_it_is_evaluated(tmp_path: Path) -> None:
    made: set[str] = set()
    for command in commands(tmp_path):
        if command[0] == "distill":
            made.add(command[command.index("--out") + 1])
        if command[0] == "evaluate":
            assert str(Path(command[1]).parent) in made
    assert [Path(folder).name for folder in sorted(made)] == sorted(METHODS)
    assert commands(tmp_path)[-1][0] == "report"


def test_sets_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    for method in METHODS[:3]:
        (tmp_path / method).mkdir()
        (tmp_path / method / "set.safetensors").write_bytes(b"")
    distills = [c for c in commands(tmp_path) if c[0] == "distill"]
    assert [c[c.index("--method") + 1] for c in distills] == METHODS[3:]


def test_every_command_is_understood(tmp_path: Path) -> None:
    pytest.importorskip("typer")
    from typer.main import get_command

    from ddkern.cli.app import app

    group = get_command(app)
    for name, *arguments in commands(tmp_path):
        subcommand = group.commands[name]  # type: ignore[attr-defined]
        with subcommand.make_context(name, list(arguments)) as context:
            assert context.params


def test_the_table_says_what_is_surely_better(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from ddkern.data import open_dataset
    from ddkern.distill import Random, distill
    from helpers.runs import make_evaluation, write_json

    made = distill(open_dataset("digits"), Random(ipc=1), random_state=0)
    made.save(tmp_path / "set.safetensors")
    found = {"low": (0.50, 0.52), "high": (0.90, 0.92), "same": (0.89, 0.92)}
    for name, accuracies in found.items():
        evaluation = make_evaluation(accuracies, made)
        path = tmp_path / "accuracies" / f"{name}.json"
        write_json(path, {"label": name, "evaluation": evaluation.as_dict()})
    demo.print_accuracies(tmp_path)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["high", "same", "low"]
    assert rows[0][1:4] == ["91.00", "+-", "1.00"]
    assert [" ".join(row[4:]) for row in rows] == ["1 below", "all below", ""]


def test_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert demo.main([]) == 1
    expected = "the demo needs the package diffusers (pip install 'ddkern[diffusion]')\n"
    assert capsys.readouterr().out == expected
