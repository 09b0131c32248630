# SPDX-License-Identifier: Apache-2.0
"""From results to docs/matching.md: ``python -m bench.matching.report`` (``--check``).

The page depends on the files in bench/results/matching, and on nothing else.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bench import record
from bench.pages import table, write_or_check

PAGE = Path("docs/matching.md")

_INTRODUCTION = """\
What systems of trajectory matching spend their time and memory on: the distance between networks,
and its gradient through steps of SGD."""

_DISTANCE = """\
`ddkern.losses.trajectory_distance`, forward and backward, against the same in operations of torch;
medians over the rounds, in which contestants take turns, and in brackets how many times longer than
ddkern. *Bandwidth*: the six vectors that have to be read or written, against plain sums over
vectors of the same size."""

_UNROLL = """\
`ddkern.distill.Unroll`: a ConvNet-D3 of 32 x 32 pixels takes steps on random images, augmented by
DSA, and the gradient of where it ends is taken with respect to images and learning rate. Memory is
the largest size of the process beyond what it had before; *difference* is that of the gradients of
the images, relative to the first one. In float64 they agree to 1e-9, which tests see to; in float32
some value lies on the other side of a ReLU's corner, and moves a gradient by a percent."""

_TESLA = """\
TESLA's gradient leaves out the path through the parameters of earlier steps. Relative error and
cosine of its derivative with respect to the images, against the exact one: a ConvNet-D3 on
CIFAR-10, from an untrained expert to the same expert after two epochs, on real images with DSA, all
of them in each step."""


def render(documents: dict[str, dict[str, Any]]) -> str:
    """Return the text of the page from documents by suite; those that are missing are left out."""
    parts = [
        "# Trajectory matching",
        "<!-- Written by `python -m bench.matching.report`: do not edit. -->",
        _INTRODUCTION,
    ]
    for suite, heading, text, make in (
        ("matching_distance", "Distances", _DISTANCE, _distances),
        ("matching_unroll", "Gradients through steps", _UNROLL, _unrolled),
        ("matching_tesla", "The bias of TESLA", _TESLA, _biases),
    ):
        if suite in documents:
            document = documents[suite]
            machine = f"{document['machine']['cpu']}, {document['threads']} threads, torch "
            machine += f"{document['versions']['torch']}; `{document['command']}`."
            parts += [f"## {heading}", text, make(document), machine]
    return "\n\n".join(parts) + "\n"


def _distances(document: dict[str, Any]) -> str:
    names = list(document["lines"][0]["seconds"])
    rows = []
    for line in document["lines"]:
        found = {name: statistics.median(times) for name, times in line["seconds"].items()}
        ours = found["ddkern"]
        moved = 6 * 4 * line["size"] / ours / line["bytes_per_second"]
        rows.append(
            [
                line["title"],
                f"{1e3 * ours:.3f}",
                *(
                    f"{1e3 * found[name]:.3f} ({found[name] / ours:.1f}x)"
                    for name in names
                    if name != "ddkern"
                ),
                f"{100 * moved:.0f} %",
            ]
        )
    head = ["parameters", *(f"{name} (ms)" for name in names), "bandwidth"]
    text = table(head, rows)
    absent = "; ".join(f"{name}: {why}" for name, why in document["absent"].items())
    return text + (f"\n\nNot measured: {absent}." if absent else "")


def _unrolled(document: dict[str, Any]) -> str:
    rows = []
    for line in document["lines"]:
        exact = line["results"]["exact"]
        for how, found in line["results"].items():
            row = [str(line["steps"]), str(line["batch"]), how]
            if found.get("killed"):
                rows.append([*row, "more than there is", "", "", "", ""])
                continue
            rows.append(
                [
                    *row,
                    f"{found['bytes'] / 1e6:.0f}",
                    f"{found['bytes'] / exact['bytes']:.1f}x",
                    f"{found['seconds']:.1f}",
                    f"{found['seconds'] / exact['seconds']:.2f}x",
                    f"{found['difference'][0]:.1e}",
                ]
            )
    head = ["steps", "images a step", "gradient", "memory (MB)", "of exact", "seconds", "of exact"]
    return table([*head, "difference"], rows, 3)


def _biases(document: dict[str, Any]) -> str:
    rows = [
        [
            str(line["ipc"]),
            str(line["steps"]),
            f"{line['lr']:g}",
            f"{line['distance']:.4f}",
            f"{line['error']:.3f}",
            f"{line['cosine']:.3f}",
            " and ".join(f"{value:.3g}" for value in line["lr_gradient"]),
        ]
        for line in document["lines"]
    ]
    head = ["images a class", "steps", "learning rate", "distance", "relative error", "cosine"]
    return table([*head, "derivative by the rate, exact and TESLA's"], rows, 0)


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or say whether it is up to date."""

    def text() -> str:
        files = sorted((record.RESULTS / "matching").glob("*.json"))
        documents = [json.loads(file.read_text()) for file in files]
        return render({document["suite"]: document for document in documents})

    return write_or_check("bench.matching.report", PAGE, text, arguments)


if __name__ == "__main__":
    sys.exit(main())
