# SPDX-License-Identifier: Apache-2.0
"""Tables of docs/evaluation.md about methods on latents, and about all training images."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.pages import table

__all__ = ["sections"]

_FULL = """\
The upper line of the tables above, under a schedule that a CPU can bear and not under a protocol:
ConvNet-D3, SGD with momentum and a cosine, images shifted and mirrored. The literature prints 84.8
for hundreds of epochs."""

_METHODS = """\
DDOQ and D4M through a prior that was fitted to the data set on the spot, beside real images. Every
set is made with a seed of its own and evaluated by one network of its own. Deviations are divided
by n; the difference to random images stands with its standard error, divided by n - 1. Strength is
how far a latent is diffused before it is denoised; at 0 centroids are decoded as they are. The
strength that fitted priors of small images bring along, 0.2, was chosen by lines of digits, test
images and all."""

_COST = """\
`ddkern distill --method ddoq` on all training images of CIFAR-10, with a prior that is there.
*Outside* is the share of the encoding that its model did not take. Memory is the largest size of
the process beyond that of one which only loads the models and uses them."""

_CODEBOOKS = """\
Every class of CIFAR-10 is quantized by k centroids. W2 is the root mean square over classes of the
2-Wasserstein distance from the class to its centroids, with the masses of the cells as weights and
with equal weights (exact transport). Distances are in the units of the space: pixels run from -1 to
1. For latents of ImageNet, H. Y. Tan and E. Slade print gains of 15.7 % at 10 and 16.1 % at 50
images a class."""


_AT_ONCE = """\
A step of several ConvNets on the same CIFAR-10 sized images: one after the other, with the kernel
for what follows a convolution, or all in one step of `torch.func.vmap`, which cannot use it."""


def sections(documents: list[dict[str, Any]]) -> list[str]:
    """The headings, texts and tables of these documents; nothing of what is not there."""
    by_suite: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        by_suite.setdefault(document["suite"], []).append(document)
    parts = []
    for document in by_suite.get("full_data", []):
        parts += ["## All training images", _FULL, _full(document)]
    methods = by_suite.get("latent_methods", [])
    if methods:
        parts += ["## DDOQ and D4M", _METHODS]
    for dataset in sorted({document["data"]["name"] for document in methods}):
        of_dataset = [d for d in methods if d["data"]["name"] == dataset]
        parts += [f"### {dataset}", _about_prior(of_dataset), _methods(of_dataset)]
    costs = by_suite.get("latent_cost", [])
    if costs:
        parts += ["## What it costs", _COST, _costs(costs)]
    for document in by_suite.get("networks_at_once", []):
        parts += ["## Networks at once", _AT_ONCE, _at_once(document)]
    for document in by_suite.get("codebooks", []):
        parts += ["## What the masses are worth", _CODEBOOKS, _codebooks(document)]
    return parts


def _full(document: dict[str, Any]) -> str:
    found = 100 * np.array([line["accuracy"] for line in document["lines"]])
    schedule = document["schedule"]
    row = [
        str(document["data"]["images"]),
        str(schedule["epochs"]),
        str(schedule["batch_size"]),
        document["lines"][0]["precision"],
        f"{found.mean():.1f}" + (f" ± {found.std():.1f}" if len(found) > 1 else ""),
        str(len(found)),
        f"`{document['command']}`",
    ]
    head = ["images", "epochs", "batch", "precision", "accuracy (%)", "networks", "command"]
    return table(head, [row])


def _about_prior(documents: list[dict[str, Any]]) -> str:
    prior = documents[0]["prior"]
    if any(document["prior"] != prior for document in documents):
        raise ValueError(f"lines of {documents[0]['data']['name']} come from several priors")
    figures, recipe = prior["figures"], prior["recipe"]
    minutes = sum(prior["seconds"].values()) / 60
    teachers = {d["lines"][0].get("teacher_accuracy") for d in documents} - {None}
    labelled = "".join(
        f" The teacher, a ConvNet-D3, names {100 * accuracy:.1f} % of the test images right."
        for accuracy in sorted(teachers)
    )
    return (
        f"The prior: {recipe['autoencoder']['steps']} steps of the autoencoder, "
        f"{recipe['diffusion']['steps']} of the transformer, {minutes:.0f} minutes. Reconstruction "
        f"error {figures['reconstruction_rmse']:.3f} (pixels in [0, 1], RMS). A classifier "
        f"of real images names {100 * figures['real_accuracy']:.1f} % of the test images "
        f"right, and of samples from noise {100 * figures['sample_accuracy']:.1f} %.{labelled}"
    )


def _methods(documents: list[dict[str, Any]]) -> str:
    found = {
        document["lines"][0]["name"]: 100
        * np.array([drawn["accuracy"] for drawn in document["lines"][0]["sets"]])
        for document in documents
    }
    rows = []
    for document in sorted(documents, key=_place):
        (line,) = document["lines"]
        values = found[line["name"]]
        if f" --sets {len(values)}" not in document["command"]:
            raise ValueError(f"{line['name']} has {len(values)} sets; its command asks for more")
        base = found.get(f"random-{line['ipc']}@{line['protocol']}")
        margin = ""
        if base is not None and line["method"] != "random" and min(len(values), len(base)) > 1:
            error = (values.var(ddof=1) / len(values) + base.var(ddof=1) / len(base)) ** 0.5
            margin = f"{values.mean() - base.mean():+.1f} ± {error:.1f}"
        decoding = line["decoding"] or {}
        rows.append(
            [
                line["sets"][0]["protocol"] + (f", {line['model']}" if line.get("model") else ""),
                line["method"],
                "" if not decoding else f"{decoding['strength']:g}",
                line["weights"],
                str(line["ipc"]),
                f"{values.mean():.1f} ± {values.std():.1f}",
                str(len(values)),
                margin,
                f"`{document['command']}`",
            ]
        )
    head = ["protocol", "method", "strength", "weights", "images a class", "accuracy (%)"]
    return table([*head, "sets", "over random", "command"], rows, 4)


def _place(document: dict[str, Any]) -> tuple[Any, ...]:
    (line,) = document["lines"]
    strength = (line["decoding"] or {}).get("strength", 2.0)
    return line["protocol"], line["ipc"], -1 * (line["method"] == "ddoq"), line["method"], strength


def _codebooks(document: dict[str, Any]) -> str:
    rows = []
    for line in document["lines"]:
        found = line["measures"]["summary"]
        rows.append(
            [
                line["space"],
                str(line["features"]),
                str(line["k"]),
                f"{found['w2_upper']:.3f}",
                f"{found['w2_uniform_lower']:.3f}",
                f"{100 * found['gain_lower']:.1f} %",
                f"{found['effective_atoms']:.1f}",
                f"{line['seconds_quantizing']:.1f}",
            ]
        )
    head = ["space", "features", "k", "W2, masses", "W2, equal weights", "gain"]
    text = table([*head, "effective centroids", "seconds to quantize"], rows)
    return f"{text}\n\nMade by `{document['command']}`, {document['threads']} threads."


def _costs(documents: list[dict[str, Any]]) -> str:
    rows = []
    for document in documents:
        (line,) = document["lines"]
        stages = {stage["name"]: stage for stage in line["stages"]}
        encode = stages["encode"]
        outside = 1 - encode["detail"]["seconds_in_codec"] / encode["seconds"]
        whole = sum(stage["seconds"] for stage in line["stages"])
        rows.append(
            [
                str(line["images"]),
                str(line["ipc"]),
                *(f"{stages[name]['seconds']:.2f}" for name in ("encode", "quantize", "decode")),
                f"{100 * outside:.1f} %",
                f"{100 * stages['quantize']['seconds'] / whole:.2f} %",
                f"{(line['bytes_of_run'] - line['bytes_of_models']) / 1e6:.0f} MB",
                f"`{document['command']}`",
            ]
        )
    head = ["images", "images a class", "encode (s)", "quantize (s)", "decode (s)", "outside"]
    return table([*head, "quantization of all", "memory", "command"], rows)


def _at_once(document: dict[str, Any]) -> str:
    rows = []
    for line in document["lines"]:
        found = line["seconds_of_a_step"]
        rows.append(
            [
                str(line["networks"]),
                str(line["batch"]),
                *(f"{1e3 * found[name]:.1f}" for name in ("at once", "in turn")),
                f"{1e3 * found['in turn, bfloat16']:.1f}",
            ]
        )
    head = ["networks", "images", "at once (ms)", "in turn (ms)", "in turn, bfloat16 (ms)"]
    return table(head, rows) + f"\n\nMade by `{document['command']}`."
