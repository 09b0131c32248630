# SPDX-License-Identifier: Apache-2.0
"""MTT on CIFAR-10, as far as a CPU carries it: ``python -m bench.matching.mtt``.

Trains a few narrow experts, learns a set with the published settings of one image a class (steps,
rates, ZCA, DSA), and evaluates it beside the random images that it began with and those of k-means,
under E1-dsa with the experts' network and with the protocol's own. Everything is kept in a folder;
a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import record
from bench.evaluation.anchors import open_splits
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.distill import MTT, KMeansNearest, distill
from ddkern.evaluate import evaluate
from ddkern.experts import expert_recipe, train_experts
from ddkern.report import draw_distilled_set

IPC = 1
WIDTHS = {"of the experts": 32, "of the protocol": 128}


def main(arguments: list[str] | None = None) -> int:
    """Train, learn, evaluate; write the document and the picture."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    train, test, _ = open_splits("cifar10")
    normalization = Normalization.fit(train, zca=True)
    experts = train_experts(
        train,
        options.folder / "experts",
        n_experts=options.n_experts,
        normalization=normalization,
        model="convnet-d3",
        model_options={"width": WIDTHS["of the experts"]},
        recipe=expert_recipe(options.epochs),
        test=test,
        precision="float32",
        progress=True,
    )
    method = MTT.published(
        "cifar10",
        IPC,
        experts,
        iterations=options.iterations,
        folder=options.folder / "run",
    )
    learned = distill(train, method, normalization=normalization, random_state=0, progress=True)
    start = distill(
        train,
        replace(method, iterations=1, lr_images=0.0, lr_student_lr=0.0, folder=None),
        normalization=normalization,
        random_state=0,
    )
    k_means = distill(train, KMeansNearest(ipc=IPC), normalization=normalization, random_state=0)
    document = record.new(
        "matching_mtt",
        options.threads,
        f"python -m bench.matching.mtt --n-experts {options.n_experts} --epochs {options.epochs} "
        f"--iterations {options.iterations}",
    )
    history = json.loads((options.folder / "run" / "history.json").read_text())
    stage = json.loads((options.folder / "run" / "stages" / "mtt.json").read_text())
    document |= {
        "versions": {"torch": torch.__version__},
        "experts": {
            "count": len(experts),
            "epochs": experts.n_checkpoints - 1,
            "width": WIDTHS["of the experts"],
            "accuracies": list(experts.accuracies().values()),
        },
        "iterations": options.iterations,
        "seconds": stage["seconds"],
        "losses": history["losses"],
        "student_lr": learned.student_lr,
        "settings": {k: v for k, v in method.options().items() if k != "experts"},
    }
    # The rate that was learned belongs to the set that was learned.
    sets = {"MTT": learned, "random": replace(start, student_lr=None), "k-means": k_means}
    with (record.ROOT / "docs" / "images" / "mtt_cifar10.png").open("wb") as file:
        draw_distilled_set(learned).save(file, "PNG")
    for name, distilled in sets.items():
        document["lines"].append(_evaluate(name, distilled, test, options))
        record.write(document, options.out)
    return 0


def _evaluate(
    name: str, distilled: DistilledSet, test: ImageDataset, options: argparse.Namespace
) -> dict[str, Any]:
    found = {}
    for network, width in WIDTHS.items():
        result = evaluate(
            distilled,
            test,
            "E1-dsa",
            model="convnet-d3",
            model_options={"width": width},
            n_networks=options.n_networks,
            precision="float32",
            state=options.folder / "evaluation" / f"{name}-{width}",
            progress=True,
        )
        found[network] = {
            "protocol": result.conditions["protocol"],
            "width": width,
            "mean": float(np.mean(result.last)),
            "std": float(np.std(result.last)),
            "networks": len(result.networks),
        }
        print(name, network, result, flush=True)
    return {"set": name, "results": found}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.matching.mtt", description=__doc__)
    parser.add_argument("--n-experts", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="of each expert")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--n-networks", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, default=record.ROOT / "build" / "mtt_cifar10")
    parser.add_argument(
        "--out", type=Path, default=record.RESULTS / "matching" / "mtt_cifar10.json"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
