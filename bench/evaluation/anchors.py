# SPDX-License-Identifier: Apache-2.0
"""Accuracies of coresets: ``python -m bench.evaluation.anchors --lines random-1@E1-dc``.

The data set is CIFAR-10, or scikit-learn's digits with ``--dataset digits``. A line is a method, a
number of images a class and a protocol. Every set is drawn with a seed of its own and trained on by
one network of its own, so that the deviation is that of sets and networks together. Herding,
k-center and k-means compare images by their pixels, or with ``--features network`` by the features
of a ConvNet that was trained on all training images for two epochs, another one for each seed. What
is finished is kept in ``--work``, and a second run goes on from there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import record
from ddkern.data import DistilledSet, ImageDataset, Normalization, open_dataset
from ddkern.distill import NetworkFeatures, distill, make_method
from ddkern.evaluate import evaluate
from ddkern.experts import train_teacher
from ddkern.training import Decay, Optimizer, Recipe

FEATURE_RECIPE = Recipe(
    epochs=2,
    batch_size=128,
    optimizer=Optimizer(name="sgd", lr=0.02, momentum=0.9, weight_decay=5e-4),
    decay=Decay(kind="cosine"),
)


@dataclass(frozen=True)
class Anchor:
    """One line: what is drawn, how it is scored, and how many sets are drawn."""

    method: str
    ipc: int
    protocol: str
    weights: str = "uniform"

    @property
    def name(self) -> str:
        suffix = "" if self.weights == "uniform" else f"-{self.weights}"
        return f"{self.method}-{self.ipc}{suffix}@{self.protocol}"


def parse(name: str) -> Anchor:
    """Return the line of a name such as ``k-means-10-sqrt@E1-dc``."""
    what, protocol = name.split("@")
    weights = "uniform"
    for candidate in ("sqrt", "density"):
        if what.endswith(f"-{candidate}"):
            what, weights = what.removesuffix(f"-{candidate}"), candidate
    method, ipc = what.rsplit("-", 1)
    return Anchor(method, int(ipc), protocol, weights)


def main(arguments: list[str] | None = None) -> int:
    """Measure the lines that are asked for, writing the document after every set."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    train, test, normalization = open_splits(options.dataset)
    command = f"python -m bench.evaluation.anchors --precision {options.precision} "
    if options.dataset == "digits":
        command += "--dataset digits "
    if options.features == "network":
        command += "--features network "
    command += f"--sets {options.sets} --lines "
    for name in options.lines:
        anchor = parse(name)
        document = record.new("accuracy", options.threads, command + name)
        document["data"] = {
            "name": options.dataset,
            "train_hash": train.fingerprint(),
            "test_hash": test.fingerprint(),
        }
        line: dict[str, Any] = {
            "name": anchor.name,
            "method": anchor.method,
            "ipc": anchor.ipc,
            "protocol": anchor.protocol,
            "weights": anchor.weights,
            "features": None if anchor.method == "random" else options.features,
            "sets": [],
        }
        document["lines"] = [line]
        for seed in range(options.sets):
            start = time.perf_counter()
            line["sets"].append(_measure(anchor, seed, train, test, normalization, options))
            record.write(document, options.out / _file_name(name, options))
            found = 100 * line["sets"][-1]["accuracy"]
            print(f"{name} set {seed}: {found:.2f} %  [{time.perf_counter() - start:.0f} s]")
            sys.stdout.flush()
    return 0


def open_splits(dataset: str) -> tuple[ImageDataset, ImageDataset, Normalization]:
    """Return training images, test images and the normalization of ``digits`` or ``cifar10``."""
    if dataset == "digits":
        train, test = (open_dataset("digits", split=split).load() for split in ("train", "test"))
        return train, test, Normalization.fit(train)
    place = os.environ.get("DDKERN_CIFAR10")
    if place is None:
        raise SystemExit("DDKERN_CIFAR10 is not set: the folder with the parquet files of CIFAR-10")
    train, test = (open_dataset(place, split=split).load() for split in ("train", "test"))
    return train, test, Normalization.published("cifar10")


def _file_name(line: str, options: argparse.Namespace) -> str:
    prefix = "" if options.dataset == "cifar10" else f"{options.dataset}-"
    features = "-network" if options.features == "network" else ""
    return f"{prefix}{line}{features}-{options.precision}.json"


def _measure(
    anchor: Anchor,
    seed: int,
    train: ImageDataset,
    test: ImageDataset,
    normalization: Normalization,
    options: argparse.Namespace,
) -> dict[str, Any]:
    features: dict[str, Any] = {}
    teacher_accuracy = None
    if anchor.method != "random" and options.features == "network":
        teacher = train_teacher(
            train,
            normalization=normalization,
            recipe=FEATURE_RECIPE,
            test=test,
            random_state=seed,
            folder=options.work / "teachers",
            progress=options.progress,
        )
        teacher_accuracy = teacher.accuracy
        features["features"] = NetworkFeatures(model=teacher.model)
    method = make_method(anchor.method, ipc=anchor.ipc, **features)
    drawn = distill(train, method, normalization=normalization, random_state=seed)
    state = (
        options.work / options.dataset / Path(_file_name(anchor.name, options)).stem / f"set-{seed}"
    )
    found = score(
        drawn,
        test,
        anchor.protocol,
        seed,
        weights=anchor.weights,
        precision=options.precision,
        state=state,
        progress=options.progress,
    )
    return {**found, "feature_network_accuracy": teacher_accuracy}


def score(
    drawn: DistilledSet, test: ImageDataset, protocol: str, seed: int, **arguments: Any
) -> dict[str, Any]:
    """Train the one network of a set, or read it where that was done; what is kept of it."""
    result = evaluate(drawn, test, protocol, n_networks=1, random_state=seed, **arguments)
    network = result.networks[0]
    return {
        "seed": seed,
        "network_seed": network.seed,
        "accuracy": network.last,
        "loss": network.loss,
        "seconds": network.seconds,
        "protocol": result.conditions["protocol"],
        "set_hash": result.conditions["set_hash"],
        "precision": result.conditions["precision"],
        "environment": result.environment,
    }


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation.anchors", description=__doc__)
    parser.add_argument("--lines", nargs="+", required=True, help="such as herding-10@E1-dsa")
    parser.add_argument("--dataset", default="cifar10", choices=["cifar10", "digits"])
    parser.add_argument("--features", default="pixels", choices=["pixels", "network"])
    parser.add_argument("--sets", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--work", type=Path, default=Path("build/anchors"))
    parser.add_argument("--out", type=Path, default=record.RESULTS / "accuracy")
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
