# SPDX-License-Identifier: Apache-2.0
"""The commands that README.md shows print what stands below them.

The accuracies are of one machine and take minutes; they are put into the place of those that
training would give, so that seeds, means and every other character are still compared.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

for _package in ("typer", "rich", "safetensors", "sklearn", "PIL", "torch"):
    pytest.importorskip(_package)

from ddkern.evaluate import Evaluation, EvaluationPlan, NetworkResult  # noqa: E402

README = Path(__file__).resolve().parents[3] / "README.md"


def shown_commands() -> list[tuple[list[list[str]], str]]:
    """The commands of each block, and the output below it."""
    text = README.read_text(encoding="utf-8")
    section = text.split("\n## Coresets and evaluation\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```\n\n```text\n(.*?)```", section, re.DOTALL)
    return [
        ([shlex.split(line, comments=True) for line in commands.splitlines()], output)
        for commands, output in blocks
    ]


def test_commands_print_what_is_shown(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (distilling, distilled), (evaluating, evaluated) = shown_commands()
    rows = re.findall(r"^\d+ +\d+ +([\d.]+) +[\d.]+ +([\d.]+)$", evaluated, re.MULTILINE)

    def stand_in(plan: EvaluationPlan, **_: Any) -> Evaluation:
        assert len(plan.seeds) == len(rows)
        networks = tuple(
            NetworkResult(
                index=index,
                seed=plan.seeds[index],
                epochs=plan.test_epochs,
                # Of 359 test images: the accuracy itself, from its two digits.
                accuracies=(round(float(last) / 100 * len(plan.test)) / len(plan.test),),
                loss=1.0,
                seconds=float(seconds),
            )
            for index, (last, seconds) in enumerate(rows)
        )
        return Evaluation(conditions=plan.conditions(), environment={}, networks=networks)

    monkeypatch.setattr("ddkern.evaluate.run_plan", stand_in)
    printed = []
    for command in (*distilling, *evaluating):
        assert command[0] == "ddkern"
        done = run(*command[1:])
        assert done.exit_code == 0, done.stderr
        printed.append(done.stdout)
    timed = re.compile(r"^[\d.]+ seconds$", re.MULTILINE)
    assert timed.sub("", printed[0]) == timed.sub("", distilled)
    assert printed[1].startswith("set            digits-10/set.safetensors, ")
    assert printed[-1] == evaluated
