# SPDX-License-Identifier: Apache-2.0
"""Folders as runs of a distillation leave them behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddkern.data import DistilledSet, open_dataset
from ddkern.distill import KMeansNearest, distill
from ddkern.evaluate import Evaluation, NetworkResult
from ddkern.evaluate.measures import QuantizationMeasures
from ddkern.evaluate.plan import fingerprint
from helpers.datasets import png

STAGES = (("prior", 90.5), ("encode", 4.25), ("quantize", 0.5), ("decode", 10.0), ("relabel", 2.75))
SETTINGS = {
    "ipc": 4,
    "prior": {"steps": 300, "widths": [16, 32]},
    "guidance": 1.1234567,
    "relabel": True,
}


def make_digits_set(ipc: int = 4, **changes: Any) -> DistilledSet:
    """Return a set of weighted real digits."""
    return distill(open_dataset("digits"), KMeansNearest(ipc=ipc), random_state=0, **changes)


def make_evaluation(
    accuracies: Sequence[float], distilled: DistilledSet | None = None, **conditions: Any
) -> Evaluation:
    """Return the record of one network an accuracy, as if a set had been evaluated."""
    known = {
        "protocol": "E1-dsa@1",
        "protocol_digest": "12ab",
        "set_hash": "elsewhere" if distilled is None else fingerprint(distilled),
        "model": "convnet",
        "model_options": {"width": 16},
        "test": "digits",
        "test_split": "test",
        "test_hash": "34cd",
        "weights": "density",
    }
    return Evaluation(
        conditions=known | conditions,
        environment={"device": "cpu"},
        networks=tuple(
            NetworkResult(
                index=index,
                seed=index,
                epochs=(9,),
                accuracies=(accuracy,),
                loss=0.5,
                seconds=1.5,
            )
            for index, accuracy in enumerate(accuracies)
        ),
    )


def make_measures(distilled: DistilledSet) -> QuantizationMeasures:
    """Return measures of every class: exact ones, but for the uniform W2 of class 1."""
    label = np.arange(distilled.n_classes)
    w2 = 2 + label / 8
    return QuantizationMeasures(
        groups=label,
        n_points=140 + label,
        n_atoms=distilled.class_counts,
        distortion=w2**2,
        w2_lower=w2,
        w2_upper=w2,
        w2_uniform_lower=w2 * 1.25,
        w2_uniform_upper=w2 * np.where(label == 1, 1.26, 1.25),
        stationarity=label / 100,
        mass_min=np.full(len(label), 0.015625),
        mass_max=np.full(len(label), 0.34375),
        effective_atoms=3 + label / 16,
        empty_share=np.zeros(len(label)),
    )


def write_json(path: Path, content: Any) -> None:
    """Write plain values, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_evaluation(folder: Path, name: str, label: str, evaluation: Evaluation) -> None:
    """Write an evaluation as the folder of a run has it."""
    write_json(
        folder / "accuracies" / f"{name}.json",
        {"label": label, "evaluation": evaluation.as_dict()},
    )


def make_record(distilled: DistilledSet, **changes: Any) -> dict[str, Any]:
    """Return the content of run.json for a set."""
    record = {
        "format": "ddkern-run",
        "format_version": 1,
        "command": "ddkern distill --method ddoq --dataset 'my digits' --out run",
        "method": "ddoq",
        "dataset": "digits",
        "dataset_hash": distilled.provenance.source_hash,
        "random_state": 7,
        "settings": SETTINGS,
        "stages": [
            {"name": name, "seconds": seconds, "detail": {"rows": 100 + index, "rmse": 0.123456}}
            for index, (name, seconds) in enumerate(STAGES)
        ],
        "versions": {"python": "3.12.1", "ddkern": "0.9"},
    }
    return record | changes


def write_run(folder: Path, distilled: DistilledSet) -> Path:
    """Write a folder with everything that a run can leave behind, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    distilled.save(folder / "set.safetensors")
    write_json(folder / "run.json", make_record(distilled))
    shape = (len(distilled), *distilled.image_shape)
    np.save(folder / "nearest_real.npy", rng.integers(0, 256, shape, np.uint8))
    write_evaluation(
        folder,
        "1-density",
        "DDOQ, density",
        make_evaluation((0.912, 0.918, 0.915), distilled),
    )
    write_evaluation(
        folder,
        "2-uniform",
        "DDOQ, uniform",
        make_evaluation((0.911, 0.914, 0.913), distilled, weights="uniform"),
    )
    write_evaluation(folder, "3-random", "random", make_evaluation((0.84, 0.87, 0.855)))
    write_evaluation(folder, "4-alone", "one network", make_evaluation((0.88,)))
    write_evaluation(
        folder, "5-resnet", "DDOQ, ResNet", make_evaluation((0.9, 0.91), model="resnet-18")
    )
    write_json(folder / "measures.json", make_measures(distilled).as_dict())
    (folder / "prior").mkdir(exist_ok=True)
    for number, name in enumerate(("curves", "samples", "reconstructions")):
        picture = np.full((3, 20, 30 + number), 60 * number, np.uint8)
        (folder / "prior" / f"{name}.png").write_bytes(png(picture))
    return folder
