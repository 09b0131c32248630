# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the ConvNet on all training images: ``python -m bench.evaluation.full_data``.

The upper line of the tables, under a schedule that a CPU can bear, which the document states.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from bench import record
from ddkern.augment import DSA
from ddkern.data import Normalization, open_dataset
from ddkern.experts import train_teacher
from ddkern.training import Decay, Optimizer, Recipe
from ddkern.training.recipe import describe

BATCH = 128


def recipe(epochs: int) -> Recipe:
    """Return the schedule: SGD with a cosine, images shifted and mirrored."""
    return Recipe(
        epochs=epochs,
        batch_size=BATCH,
        optimizer=Optimizer(name="sgd", lr=0.02, momentum=0.9, weight_decay=5e-4),
        decay=Decay(kind="cosine"),
        augment=(DSA(strategy="crop_flip", mode="all"),),
    )


def main(arguments: list[str] | None = None) -> int:
    """Train the networks, writing the document after each."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    place = os.environ.get("DDKERN_CIFAR10")
    if place is None:
        raise SystemExit("DDKERN_CIFAR10 is not set: the folder with the parquet files of CIFAR-10")
    train, test = (open_dataset(place, split=split).load() for split in ("train", "test"))
    schedule = recipe(options.epochs)
    document = record.new(
        "full_data",
        options.threads,
        f"python -m bench.evaluation.full_data --epochs {options.epochs} "
        f"--networks {options.networks}",
    )
    document["data"] = {
        "name": "cifar10",
        "images": len(train),
        "train_hash": train.fingerprint(),
        "test_hash": test.fingerprint(),
    }
    document["schedule"] = describe(schedule)
    for seed in range(options.networks):
        teacher = train_teacher(
            train,
            normalization=Normalization.published("cifar10"),
            recipe=schedule,
            test=test,
            random_state=seed,
            folder=options.work,
            progress=options.progress,
        )
        document["lines"].append(
            {
                "seed": seed,
                "accuracy": teacher.accuracy,
                "model": teacher.conditions["model"],
                "precision": teacher.conditions["precision"],
            }
        )
        record.write(document, options.out / "full-data.json")
        print(f"network {seed}: {100 * (teacher.accuracy or 0):.2f} %")
        sys.stdout.flush()
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation.full_data")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--networks", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=Path("build/anchors/full-data"))
    parser.add_argument("--out", type=Path, default=record.RESULTS / "evaluation")
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
