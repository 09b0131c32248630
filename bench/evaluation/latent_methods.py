# SPDX-License-Identifier: Apache-2.0
"""DDOQ and D4M beside coresets: ``python -m bench.evaluation.latent_methods --prior DIR``.

A line is ``method[:strength]-ipc[-weights]@protocol``, such as ``ddoq:0.2-10-density@small``. All
networks of a line share one set; the deviation is that of training alone. What is finished is kept
in ``--work``.
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
from ddkern.data import Normalization, open_dataset
from ddkern.distill import distill, make_method
from ddkern.evaluate import evaluate
from ddkern.latents import load_codec

LINE = re.compile(
    r"(?P<method>[a-z0-9-]+?)(:(?P<strength>[\d.]+))?-(?P<ipc>\d+)"
    r"(-(?P<weights>density|sqrt|uniform))?@(?P<protocol>[\w@-]+)$"
)


def main(arguments: list[str] | None = None) -> int:
    """Measure the lines, writing the document after each."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    place = "digits" if options.dataset == "digits" else os.environ.get("DDKERN_CIFAR10")
    if place is None:
        raise SystemExit("DDKERN_CIFAR10 is not set: the folder with the parquet files of CIFAR-10")
    train, test = (open_dataset(place, split=split).load() for split in ("train", "test"))
    normalization = Normalization.fit(train)
    codec = load_codec(options.prior, image_shape=train.image_shape, class_names=train.class_names)
    document = record.new(
        "latent_methods",
        options.threads,
        f"python -m bench.evaluation.latent_methods --dataset {options.dataset} --prior PRIOR "
        f"--networks {options.networks}",
    )
    document["data"] = {"name": options.dataset, "train_hash": train.fingerprint()}
    document["prior"] = _prior(options.prior)
    for name in options.lines:
        found = LINE.match(name)
        if found is None:
            raise SystemExit(f"{name}: a line is method[:strength]-ipc[-weights]@protocol")
        line: dict[str, Any] = found.groupdict()
        line["ipc"], line["weights"] = int(line["ipc"]), line["weights"] or "uniform"
        method: dict[str, Any] = {"ipc": line["ipc"]}
        if line["method"] in ("ddoq", "d4m"):
            strength = None if line["strength"] is None else float(line["strength"])
            method |= {"codec": codec, "strength": strength, "folder": options.work / "run"}
        made = distill(
            train,
            make_method(line["method"], **method),
            normalization=normalization,
            random_state=0,
        )
        result = evaluate(
            made,
            test,
            line["protocol"],
            weights=line["weights"],
            n_networks=options.networks,
            n_train=len(train),
            state=options.work / "evaluations" / name,
            progress=options.progress,
        )
        line |= {
            "name": name,
            "decoding": made.provenance.options.get("decoding"),
            "accuracies": list(result.last),
            "seeds": [network.seed for network in result.networks],
            "conditions": dict(result.conditions),
            "environment": dict(result.environment),
        }
        document["lines"].append(line)
        record.write(document, options.out / f"latent-methods-{options.dataset}.json")
        print(f"{name}: {100 * result.mean:.2f} +- {100 * result.std:.2f} %")
        sys.stdout.flush()
    return 0


def _prior(folder: Path) -> dict[str, Any]:
    """What is known of the prior: recipe, figures, seconds."""
    from ddkern.priors import load_prior_report

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
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=Path("build/latent_methods"))
    parser.add_argument("--out", type=Path, default=record.RESULTS / "evaluation")
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
