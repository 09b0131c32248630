# SPDX-License-Identifier: Apache-2.0
"""DDOQ and D4M beside coresets: ``python -m bench.evaluation.latent_methods --prior DIR``.

A line is ``method[:strength]-ipc[-weights]@protocol``, such as ``ddoq:0.2-10-density@small``. Every
set is made with a seed of its own and trained on by one network of its own, so that the deviation
is that of sets and networks together, as in :mod:`bench.evaluation.anchors`. A protocol with a
teacher gets the ConvNet of :mod:`bench.evaluation.full_data`. What is finished is kept in
``--work``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch

from bench import record
from bench.evaluation import full_data
from bench.evaluation.anchors import open_splits, score
from ddkern.data import ImageDataset, Normalization
from ddkern.distill import distill, make_method
from ddkern.evaluate import get_protocol
from ddkern.experts import train_teacher
from ddkern.latents import Codec, load_codec
from ddkern.priors import load_prior_report

LINE = re.compile(
    r"(?P<method>[a-z0-9-]+?)(:(?P<strength>[\d.]+))?-(?P<ipc>\d+)"
    r"(-(?P<weights>density|sqrt|uniform))?@(?P<protocol>[\w@-]+)$"
)
_TEACHER_EPOCHS = 10


def main(arguments: list[str] | None = None) -> int:
    """Measure the lines, writing the document of each after every set."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    lines = {name: _read_name(name) for name in options.lines}
    train, test, normalization = open_splits(options.dataset)
    codec = load_codec(options.prior, image_shape=train.image_shape, class_names=train.class_names)
    for name, line in lines.items():
        model = f" --model {options.model}" if options.model else ""
        document = record.new(
            "latent_methods",
            options.threads,
            f"python -m bench.evaluation.latent_methods --dataset {options.dataset} --prior PRIOR "
            f"--sets {options.sets}{model} --lines {name}",
        )
        document["data"] = {"name": options.dataset, "train_hash": train.fingerprint()}
        document["prior"] = _prior(options.prior)
        scoring: dict[str, Any] = {"weights": line["weights"], "progress": options.progress}
        if options.model:
            scoring["model"] = options.model
        if get_protocol(line["protocol"]).labels != "set":
            teacher = _teacher(train, test, normalization, options)
            # The test set is looked at once; training is the same however often it is.
            scoring |= {"teacher": teacher.model, "looks": 1}
            line["teacher_accuracy"] = teacher.accuracy
        line |= {"name": name, "model": options.model, "sets": []}
        document["lines"] = [line]
        for seed in range(options.sets):
            made = distill(
                train,
                _method(line, codec, options),
                normalization=normalization,
                random_state=seed,
            )
            state = options.work / options.dataset / "evaluations" / name / f"set-{seed}"
            found = score(
                made,
                test,
                line["protocol"],
                seed,
                n_train=len(train),
                state=state,
                **scoring,
            )
            line["decoding"] = made.provenance.options.get("decoding")
            line["sets"].append(found)
            file = f"{options.dataset}-{name.replace(':', '_')}.json"
            record.write(document, options.out / file)
            print(f"{name} set {seed}: {100 * found['accuracy']:.2f} %  [{found['seconds']:.0f} s]")
            sys.stdout.flush()
    return 0


def _read_name(name: str) -> dict[str, Any]:
    found = LINE.match(name)
    if found is None:
        raise SystemExit(f"{name}: a line is method[:strength]-ipc[-weights]@protocol")
    strength = found["strength"]
    return {
        **found.groupdict(),
        "ipc": int(found["ipc"]),
        "weights": found["weights"] or "uniform",
        "strength": None if strength is None else float(strength),
    }


def _method(line: dict[str, Any], codec: Codec, options: argparse.Namespace) -> Any:
    arguments: dict[str, Any] = {"ipc": line["ipc"]}
    if line["method"] in ("ddoq", "d4m"):
        folder = options.work / options.dataset / "run"
        arguments |= {"codec": codec, "strength": line["strength"], "folder": folder}
    return make_method(line["method"], **arguments)


def _teacher(
    train: ImageDataset,
    test: ImageDataset,
    normalization: Normalization,
    options: argparse.Namespace,
) -> Any:
    return train_teacher(
        train,
        normalization=normalization,
        recipe=full_data.recipe(_TEACHER_EPOCHS),
        test=test,
        random_state=0,
        folder=options.teachers,
        progress=options.progress,
    )


def _prior(folder: Path) -> dict[str, Any]:
    """What is known of the prior: recipe, figures, seconds."""
    report = load_prior_report(folder)
    return {
        "recipe": report.conditions["recipe"],
        "figures": dict(report.figures),
        "seconds": dict(report.seconds),
    }


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation.latent_methods")
    parser.add_argument("--lines", nargs="+", required=True, help="such as ddoq-10-density@small")
    parser.add_argument("--dataset", default="cifar10", choices=["cifar10", "digits"])
    parser.add_argument("--prior", type=Path, required=True, help="a folder of ddkern prior fit")
    parser.add_argument("--sets", type=int, default=5)
    parser.add_argument("--model", help="a student instead of the protocol's")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=Path("build/latent_methods"))
    parser.add_argument("--teachers", type=Path, default=Path("build/anchors/full-data"))
    parser.add_argument("--out", type=Path, default=record.RESULTS / "latents")
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
