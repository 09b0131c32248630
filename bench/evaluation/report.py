# SPDX-License-Identifier: Apache-2.0
"""From results to docs/evaluation.md: ``python -m bench.evaluation.report`` (``--check``).

The page depends on the files in bench/results/accuracy, bench/results/evaluation and
bench/results/latents and on the protocols, and on nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench import record
from bench.evaluation.latent_report import sections
from bench.pages import table, write_or_check
from ddkern.evaluate import get_protocol, protocol_names

PAGE = Path("docs/evaluation.md")

# Method, images a class, protocol: the accuracy in percent that the literature prints.
PUBLISHED = {
    ("random", 1, "E1-dc"): 14.4,
    ("random", 10, "E1-dc"): 26.0,
    ("random", 50, "E1-dc"): 43.4,
    ("herding", 1, "E1-dc"): 21.5,
    ("herding", 10, "E1-dc"): 31.6,
    ("herding", 50, "E1-dc"): 40.4,
}
_SOURCE = (
    "Published: tables of the literature as the paper of AutoPalette (NeurIPS 2024) repeats them."
)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return all documents of a folder, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def render(accuracies: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
    """Return the text of the page."""
    parts = [
        "# Evaluation",
        "<!-- Written by `python -m bench.evaluation.report`: do not edit. -->",
        "## Protocols",
        _FROZEN,
        _protocols(),
        "## Accuracies of coresets",
        _CORESETS,
        _accuracies([d for d in accuracies if d["data"]["name"] != "digits"]),
        _SOURCE,
        _DIGITS,
        _digits([d for d in accuracies if d["data"]["name"] == "digits"]),
        "## Float32 and bfloat16",
        _PRECISION,
        _precisions([d for d in accuracies if d["data"]["name"] != "digits"]),
        *sections(others),
        "## Time",
        _TIME,
        _speeds([d for d in others if d["suite"] == "evaluation"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_FROZEN = """\
A protocol is a frozen record. What changes gets a new version; the digest is that of all fields,
and `ddkern protocols --json` prints them."""

_CORESETS = """\
CIFAR-10, ConvNet-D3. Every set is drawn with a seed of its own and evaluated by one network of its
own; the deviation is over these pairs (divided by n). Images are compared by their pixels, so that
herding draws the same set each time, or by the features of a ConvNet that was trained on all
training images for two epochs (recipe in `bench/evaluation/anchors.py`), another one for each set.
The images come from JPEG files, in which
they have lost a little of what the original files hold. Weighted k-means sets have the masses of
their cells as weights. Seeds of sets and networks, flags of determinism, versions and hashes are in
the files of `bench/results/accuracy`."""

_DIGITS = """\
scikit-learn's handwritten digits, in the same manner; images are compared by their pixels. The
margin is that over random sets, and its standard error that of a difference of two means."""

_PRECISION = """\
The same sets, seeds and batches in both precisions; differences of the accuracies, in points."""

_TIME = """\
One run of E1-dsa (1001 epochs of a random set of CIFAR-10, and one test on 10,000 images) against
the loop of the literature, rewritten in `bench/evaluation/speed.py`. Ten epochs and a test are
timed in turns, medians over the rounds; a run is extended from these. Accuracies, where given, are
those of whole runs, each with a set and a network of its own; networks start from the same weights
in all columns, while the baseline draws its own batches and augmentations."""


def _protocols() -> str:
    rows = []
    for name in protocol_names():
        p = get_protocol(name)
        r = p.recipe
        augment = [type(a).__name__ for a in r.augment]
        augment += [type(r.mixing).__name__] if r.mixing is not None else []
        rows.append(
            [
                f"`{p.key}`",
                p.title,
                p.model,
                f"{r.optimizer.name} {r.optimizer.lr:g}",
                r.decay.kind,
                ", ".join(augment) or "none",
                str(r.epochs),
                str(r.batch_size),
                f"`{p.digest()[:12]}`",
            ]
        )
    head = ["id", "what", "network", "optimiser", "decay", "augmentation", "epochs", "batch"]
    return table([*head, "digest"], rows, 6)


def _accuracies(documents: list[dict[str, Any]]) -> str:
    rows = []
    for document in sorted(documents, key=_order):
        line = document["lines"][0]
        found = _percent(line)
        published = PUBLISHED.get((line["method"], line["ipc"], line["protocol"]))
        weights = "" if line["weights"] == "uniform" else f", weights {line['weights']}"
        features = "" if line["features"] is None else f" ({line['features']})"
        rows.append(
            [
                line["sets"][0]["protocol"],
                line["method"] + features + weights,
                line["sets"][0]["precision"],
                str(line["ipc"]),
                f"{found.mean():.1f} ± {found.std():.1f}",
                str(len(found)),
                "" if published is None else f"{published:.1f}",
                "" if published is None else f"{found.mean() - published:+.1f}",
                f"`{document['command']}`",
            ]
        )
    head = ["protocol", "method", "precision", "images a class", "accuracy (%)", "sets"]
    return table([*head, "published", "difference", "command"], rows, 3) if rows else ""


def _digits(documents: list[dict[str, Any]]) -> str:
    found = {document["lines"][0]["name"]: document for document in documents}
    rows = []
    for document in sorted(found.values(), key=_order):
        line = document["lines"][0]
        values = _percent(line)
        random = found.get(f"random-{line['ipc']}@{line['protocol']}")
        margin = error = ""
        if random is not None and line["method"] != "random":
            other = _percent(random["lines"][0])
            margin = f"{values.mean() - other.mean():+.2f}"
            spread = values.var(ddof=1) / len(values) + other.var(ddof=1) / len(other)
            error = f"{spread**0.5:.2f}"
        rows.append(
            [
                line["sets"][0]["protocol"],
                line["method"],
                line["weights"],
                str(line["ipc"]),
                f"{values.mean():.2f} ± {values.std():.2f}",
                str(len(values)),
                margin,
                error,
                f"`{document['command']}`",
            ]
        )
    head = ["protocol", "method", "weights", "images a class", "accuracy (%)", "sets", "margin"]
    return table([*head, "standard error", "command"], rows, 3) if rows else ""


def _precisions(documents: list[dict[str, Any]]) -> str:
    pairs: dict[str, dict[str, dict[int, float]]] = {}
    for document in documents:
        line = document["lines"][0]
        for one in line["sets"]:
            by_precision = pairs.setdefault(line["name"], {})
            by_precision.setdefault(one["precision"], {})[one["seed"]] = 100 * one["accuracy"]
    rows = []
    for name, found in sorted(pairs.items()):
        seeds = sorted(set(found.get("float32", {})) & set(found.get("bfloat16", {})))
        if len(seeds) < 2:
            continue
        difference = np.array([found["bfloat16"][s] - found["float32"][s] for s in seeds])
        error = difference.std(ddof=1) / len(seeds) ** 0.5
        rows.append([f"`{name}`", str(len(seeds)), f"{difference.mean():+.2f}", f"{error:.2f}"])
    return table(["line", "sets", "bfloat16 - float32", "standard error"], rows, 1) if rows else ""


def _speeds(documents: list[dict[str, Any]]) -> str:
    rows = []
    for document in documents:
        line = document["lines"][0]
        totals = line["seconds_of_a_run"]
        for name, title in (
            ("reference", "loop of the literature, float32"),
            ("float32", "ddkern, float32"),
            ("bfloat16", "ddkern, bfloat16"),
        ):
            accuracy = np.array(line.get("accuracies", {}).get(name, []))
            rows.append(
                [
                    line["name"],
                    title,
                    f"{totals[name]:.0f}",
                    f"{totals['reference'] / totals[name]:.2f}",
                    f"{100 * accuracy.mean():.1f} ± {100 * accuracy.std():.1f} ({len(accuracy)})"
                    if len(accuracy)
                    else "",
                    f"`{document['command']}`",
                ]
            )
    head = ["line", "by", "seconds a run", "times faster", "accuracy (%, runs)", "command"]
    if not rows:
        return ""
    machine = documents[0]["machine"]
    where = f"{machine.get('cpu', machine.get('model', 'CPU'))}, {documents[0]['threads']} threads"
    return f"{table(head, rows, 2)}\n\nOn {where}, torch {documents[0]['versions']['torch']}."


def _percent(line: dict[str, Any]) -> Any:
    return 100 * np.array([one["accuracy"] for one in line["sets"]])


def _order(document: dict[str, Any]) -> tuple[Any, ...]:
    line = document["lines"][0]
    return (line["protocol"], line["ipc"], line["method"], line["weights"], document["command"])


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or say whether it is up to date."""

    def text() -> str:
        others = [*read(record.RESULTS / "evaluation"), *read(record.RESULTS / "latents")]
        return render(read(record.RESULTS / "accuracy"), others)

    return write_or_check("bench.evaluation.report", PAGE, text, arguments)


if __name__ == "__main__":
    sys.exit(main())
