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

_LARGE = """\
The shapes of CIFAR-100 with 10 images a class, as MTT and DATM take them. By the 3.3 MB an image
and step that it takes above, a stored graph would take {graphs}. Some steps are taken; every other
one adds its parameters, {megabytes} MB. *At once*: how many images of a step go through the network
together (`micro_batch`); the gradient is the same."""

_STUDENTS = """\
The gradient of the mean distance of several students (`students` of `ddkern.distill.MTT`), {steps}
steps on all of the images: one student in the network at a time, or all of them as one computation
of `torch.func.vmap` (`at_once`), in turns. Networks with weights of their own are grouped
convolutions there, with copies between them and the norms: on a CPU no gain, so `at_once` is 1 by
default. *Difference* is that of the two gradients of the images, from rounding."""

_COMPILED = """\
What a step of a student consists of, plain and by `torch.compile`, in turns: the gradient of its
loss on the way forward, and the derivatives of a product of that gradient on the way back.
AOTAutograd does not differentiate twice; with both derivatives inside the compiled function, by
`torch.func.grad`, it compiles. Compilation is in seconds of CPU, with an empty cache; after so many
steps it has paid. Every network, size of batch and choice of derivatives is a compilation of its
own: `compiled=True` of `Unroll` and of `ddkern.distill.MTT` is for long runs."""

_TESLA = """\
TESLA's gradient leaves out the path through the parameters of earlier steps. Relative error and
cosine of its derivative with respect to the images, against the exact one: a ConvNet-D3 on
CIFAR-10, from an untrained expert to the same expert after two epochs, on real images with DSA, all
of them in each step."""


_NORMS = """\
Size of the gradient with respect to the images, the largest over three starts: a ConvNet-D3 of
width 32 on the digits of scikit-learn, whose last norm sees maps of 2 x 2, one image a class, 15
steps. An instance norm of four values that are nearly equal, as in the blank corner of a digit, has
derivatives of the order of 1 / sqrt(eps), and second ones of 1 / eps. Step after step they multiply
in the exact gradient, and not in TESLA's, which leaves out the path through the parameters. With
norms over more values the two are of one size. So for small images the norm of the experts decides
whether trajectories can be matched."""

_MTT = """\
`ddkern.distill.MTT` on CIFAR-10, one image a class, with the published settings (50 steps, ZCA,
DSA), as far as this machine carried it: {count} experts of width {width}, {epochs} epochs each
({least} to {most} % on test images then), {iterations} iterations in {minutes} minutes; the
learning rate of students went from 0.01 to {rate}. The paper has 100 experts of width 128, 50
epochs, 5000 iterations, and 46.2 % (best of all tests). Accuracies in % under {protocol},
{networks} networks, beside the random images that it began with and those nearest to the centroids
of k-means on whitened pixels.

![Ten learned images](images/mtt_cifar10.png)"""


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
        ("matching_unroll_large", "Many images", _LARGE, _large),
        ("matching_students", "Students at once", _STUDENTS, _students),
        ("matching_compiled", "Compiled steps", _COMPILED, _compiled),
        ("matching_tesla", "The bias of TESLA", _TESLA, _biases),
        ("matching_norms", "Norms and the exact gradient", _NORMS, _norms),
        ("matching_mtt", "MTT", _MTT, _accuracies),
    ):
        if suite in documents:
            document = documents[suite]
            machine = f"{document['machine']['cpu']}, {document['threads']} threads, torch "
            machine += f"{document['versions']['torch']}; `{document['command']}`."
            figures = {
                "matching_mtt": _figures,
                "matching_students": lambda found: {"steps": found["steps"]},
                "matching_unroll_large": _large_figures,
            }
            filled = text.format(**figures[suite](document)) if suite in figures else text
            parts += [f"## {heading}", filled, make(document), machine]
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


# Of a stored graph, for an image and a step: measured above.
_GRAPH_BYTES = 3.3e6


def _large_figures(document: dict[str, Any]) -> dict[str, Any]:
    lines = document["lines"]
    shapes = dict.fromkeys((line["batch"], line["all_steps"]) for line in lines)
    sizes = [batch * steps * _GRAPH_BYTES / 1e9 for batch, steps in shapes]
    return {
        "graphs": " and ".join(f"{size:.0f} GB" for size in sizes),
        "megabytes": f"{lines[0]['bytes_a_step'] / 1e6:.2f}",
    }


def _large(document: dict[str, Any]) -> str:
    rows = []
    for line in document["lines"]:
        rest = (line["all_steps"] - line["steps"]) * line["bytes_a_step"]
        rows.append(
            [
                str(line["batch"]),
                str(line["at_once"]),
                str(line["steps"]),
                f"{line['bytes'] / 1e6:.0f}",
                f"{line['seconds'] / line['steps']:.1f}",
                str(line["all_steps"]),
                f"{(line['bytes'] + rest) / 1e6:.0f}",
            ]
        )
    head = ["images a step", "at once", "steps taken", "memory (MB)", "seconds a step", "of steps"]
    return table([*head, "memory of all (MB)"], rows, 0)


def _students(document: dict[str, Any]) -> str:
    rows = [
        [
            str(line["students"]),
            str(line["images"]),
            str(line["width"]),
            f"{line['seconds']['one by one']:.1f}",
            f"{line['seconds']['at once']:.1f}",
            f"{line['seconds']['at once'] / line['seconds']['one by one']:.2f}x",
            f"{line['difference']:.1e}",
        ]
        for line in document["lines"]
    ]
    head = ["students", "images", "width", "one by one (s)", "at once (s)", "of one by one"]
    return table([*head, "difference"], rows, 0)


def _compiled(document: dict[str, Any]) -> str:
    rows = []
    for line in document["lines"]:
        plain, compiled = line["seconds"]["plain"], line["seconds"]["compiled"]
        saved = sum(plain) - sum(compiled)
        rows.append(
            [
                str(line["images"]),
                *(f"{1e3 * seconds:.0f}" for seconds in (*plain, *compiled)),
                f"{sum(plain) / sum(compiled):.2f}x",
                f"{line['compilation']:.0f}",
                f"{line['compilation'] / saved:.0f}" if saved > 0 else "never",
                f"{line['difference']:.1e}",
            ]
        )
    head = ["images", "forward (ms)", "back (ms)", "compiled forward (ms)", "compiled back (ms)"]
    return table([*head, "gain", "compilation (s)", "steps until then", "difference"], rows, 0)


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


def _norms(document: dict[str, Any]) -> str:
    rows = [
        [
            line["norm"],
            f"{line['lr']:g}",
            f"{max(line['exact']):.3f}",
            f"{max(line['tesla']):.3f}",
            f"{min(line['distance']):.2f} to {max(line['distance']):.2f}",
        ]
        for line in document["lines"]
    ]
    return table(["norm", "learning rate", "exact", "TESLA", "distances"], rows, 1)


def _figures(document: dict[str, Any]) -> dict[str, Any]:
    """What the text on MTT says."""
    experts, first = document["experts"], document["lines"][0]["results"]["of the experts"]
    return {
        "count": experts["count"],
        "width": experts["width"],
        "epochs": experts["epochs"],
        "least": f"{100 * min(experts['accuracies']):.1f}",
        "most": f"{100 * max(experts['accuracies']):.1f}",
        "iterations": document["iterations"],
        "minutes": f"{document['seconds'] / 60:.0f}",
        "rate": f"{document['student_lr']:.4f}",
        "protocol": first["protocol"],
        "networks": first["networks"],
    }


def _accuracies(document: dict[str, Any]) -> str:
    rows = [
        [
            line["set"],
            *(
                f"{100 * found['mean']:.1f} +- {100 * found['std']:.1f}"
                for found in line["results"].values()
            ),
        ]
        for line in document["lines"]
    ]
    networks = [
        f"network {name}, width {found['width']}"
        for name, found in document["lines"][0]["results"].items()
    ]
    return table(["set", *networks], rows, 1)


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or say whether it is up to date."""

    def text() -> str:
        files = sorted((record.RESULTS / "matching").glob("*.json"))
        documents = [json.loads(file.read_text()) for file in files]
        return render({document["suite"]: document for document in documents})

    return write_or_check("bench.matching.report", PAGE, text, arguments)


if __name__ == "__main__":
    sys.exit(main())
