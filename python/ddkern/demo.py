# SPDX-License-Identifier: Apache-2.0
"""``python -m ddkern.demo``: the main job on handwritten digits, from images to a report."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ddkern.errors import UnsupportedError
from ddkern.optional import import_optional

__all__ = ["commands", "main"]

_NEEDED = {
    "typer": "cli",
    "torch": "torch",
    "diffusers": "diffusion",
    "sklearn": "sklearn",
    "safetensors": "data",
    "jinja2": "report",
}
_PROTOCOL = "small"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ddkern.demo",
        description="Distil scikit-learn's handwritten digits to ten images a class through a "
        "diffusion prior that is trained on the spot, evaluate the result beside simpler methods, "
        "and write a report. What is finished in DIR is not done again.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="where it goes (default demo)"
    )
    parser.add_argument(
        "--effort", type=float, default=1.0, help="share of the prior's training steps (default 1)"
    )
    parser.add_argument(
        "--networks", type=int, default=5, help="networks for each accuracy (default 5)"
    )
    options = parser.parse_args(arguments)
    try:
        for package, extra in _NEEDED.items():
            import_optional(package, "the demo", extra)
    except UnsupportedError as error:
        print(error)
        return 1
    started = time.monotonic()
    for command in commands(options.out, effort=options.effort, networks=options.networks):
        _run(command)
    print()
    print_accuracies(options.out / "ddoq")
    print(f"\nthe report: {options.out / 'ddoq' / 'report.html'}")
    print(f"all of it: {time.monotonic() - started:.0f} seconds")
    return 0


def commands(out: Path, *, effort: float, networks: int) -> Iterator[list[str]]:
    """The commands of the demo, each without ``ddkern`` in front.

    Parameters
    ----------
    out : Path
        A folder for the sets, one folder each.
    effort : float
    networks : int

    Yields
    ------
    list of str
        Those whose result is there are left out.
    """
    run = out / "ddoq"
    prior = run / "prior"
    sets = {
        "ddoq": ["--effort", str(effort)],
        "d4m": ["--prior", str(prior)],
        "k-means": [],
        "random": [],
        "whole": [],
    }
    for method, extra in sets.items():
        if not (out / method / "set.safetensors").exists():
            how_many = [] if method == "whole" else ["--ipc", "10"]
            where = ["--out", str(out / method)]
            yield ["distill", "--method", method, "--dataset", "digits", *how_many, *where, *extra]
    lines = [
        ("ddoq", "density", "DDOQ, weights: masses"),
        ("ddoq", "sqrt", "DDOQ, weights: roots of masses"),
        ("ddoq", "uniform", "DDOQ, equal weights"),
        ("d4m", "uniform", "D4M"),
        ("k-means", "uniform", "k-means, nearest real images"),
        ("random", "uniform", "random images"),
        ("whole", "uniform", "all images"),
    ]
    for method, weights, label in lines:
        options = ["--protocol", _PROTOCOL, "--weights", weights, "--networks", str(networks)]
        into = ["--report", str(run), "--label", label]
        path = str(out / method / "set.safetensors")
        yield ["evaluate", path, "--dataset", "digits", *options, *into]
    yield ["report", str(run), "--force"]


def print_accuracies(run: Path) -> None:
    """The table of the accuracies in a run folder, the best line first.

    Between two lines, "surely better" means by more than two standard errors of their difference.
    """
    from ddkern.cli.output import format_percent, print_table
    from ddkern.report import read_run

    lines = sorted(read_run(run).evaluations, key=lambda line: -line.evaluation.mean)
    rows = []
    for rank, line in enumerate(lines):
        found = line.evaluation
        sure = [
            other.label
            for other in lines[rank + 1 :]
            if found.mean - other.evaluation.mean
            > 2 * math.hypot(found.standard_error, other.evaluation.standard_error)
        ]
        better = "all below" if len(sure) == len(lines) - rank - 1 else f"{len(sure)} below"
        last = rank == len(lines) - 1
        rows.append((line.label, format_percent(found.mean, found.std), "" if last else better))
    print_table((f"accuracy in % ({_PROTOCOL})", "last", "surely better than"), rows)


def _run(command: list[str]) -> None:
    from ddkern.cli.app import app

    print(f"\n$ ddkern {shlex.join(command)}", flush=True)
    app(command, prog_name="ddkern", standalone_mode=False)


if __name__ == "__main__":
    sys.exit(main())
