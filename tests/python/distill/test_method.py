# SPDX-License-Identifier: Apache-2.0
"""distill: what it checks, passes on, and records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import ddkern
from ddkern.data import DistilledSet, ImageDataset, Normalization, Provenance
from ddkern.distill import Herding, KMeansNearest, Method, Random, distill
from helpers.bits import assert_same_array_bits
from helpers.coresets import make_dataset

DATASET = make_dataset((6, 5, 9))


@dataclass(frozen=True)
class Recorder:
    """A method of somebody else: the first image of each class, as floats."""

    name: ClassVar[str] = "recorder"

    calls: list[dict[str, Any]]

    def options(self) -> dict[str, Any]:
        return {"depth": 3}

    def check(self, dataset: ImageDataset) -> None:
        self.calls.append({"checked": dataset})

    def distill(self, dataset: ImageDataset, **arguments: Any) -> DistilledSet:
        self.calls.append(arguments)
        rows = [dataset.rows_of_class(label)[0] for label in range(dataset.n_classes)]
        norm = arguments["normalization"]
        return DistilledSet(
            norm.apply(dataset.images(rows)),
            dataset.labels[rows],
            normalization=norm,
            student_lr=0.5,
            provenance=Provenance(method="ignored", options={"steps": 7}),
        )


def test_any_object_with_the_members_is_a_method() -> None:
    method: Method = Recorder([])
    made = distill(DATASET, method, random_state=9)
    assert made.images.dtype == np.float32
    assert made.student_lr == 0.5
    assert made.provenance.method == "recorder"
    assert made.provenance.options == {"depth": 3, "steps": 7}


def test_arguments_are_passed_on() -> None:
    method = Recorder([])
    norm = Normalization.published("mnist")

    def progress(seen: ddkern.Progress) -> None:
        raise AssertionError(seen)

    distill(DATASET, method, normalization=norm, random_state=9, progress=progress)
    checked, arguments = method.calls
    assert checked["checked"] is DATASET
    assert arguments == {"normalization": norm, "random_state": 9, "progress": progress}


def test_normalization_is_fitted_by_default() -> None:
    made = distill(DATASET, Random(ipc=1), random_state=0)
    expected = Normalization.fit(DATASET)
    assert_same_array_bits(made.normalization.mean, expected.mean, "mean")
    assert_same_array_bits(made.normalization.std, expected.std, "std")


def test_a_given_normalization_travels_with_the_set() -> None:
    norm = Normalization.published("mnist")
    assert distill(DATASET, Random(ipc=1), normalization=norm).normalization is norm


def test_provenance_is_complete() -> None:
    made = distill(DATASET, KMeansNearest(ipc=2, n_init=3), random_state=5).provenance
    rows = made.options["rows"]
    assert len(rows) == 6
    assert made == Provenance.record(
        "k-means-nearest",
        {
            "ipc": 2,
            "features": {"name": "pixels"},
            "n_init": 3,
            "max_iter": 300,
            "rows": rows,
        },
        random_state=5,
        source=DATASET,
    )
    assert (made.source, made.source_split) == ("made", "train")
    assert made.source_hash == DATASET.fingerprint()


def test_drawn_seed_is_recorded() -> None:
    dataset = make_dataset((50, 50))
    made = [distill(dataset, Random(ipc=5)) for _ in range(2)]
    seeds = [m.provenance.random_state for m in made]
    assert seeds[0] != seeds[1]
    again = distill(dataset, Random(ipc=5), random_state=seeds[0])
    assert again.provenance == made[0].provenance


@pytest.mark.parametrize("method", [Random(ipc=1), Herding(ipc=1), KMeansNearest(ipc=1)])
def test_progress_counts_classes(method: Method) -> None:
    seen: list[ddkern.Progress] = []
    distill(DATASET, method, random_state=0, progress=seen.append)
    assert [(p.groups_done, p.groups_total) for p in seen] == [(1, 3), (2, 3), (3, 3)]
    elapsed = [p.seconds_elapsed for p in seen]
    assert elapsed == sorted(elapsed)
    assert elapsed[0] >= 0
    assert seen[-1].seconds_left == 0


def test_progress_in_lines_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    distill(DATASET, Random(ipc=1), random_state=0, progress=True)
    assert "random: 3 of 3" in capsys.readouterr().err
    distill(DATASET, Random(ipc=1), random_state=0)
    assert capsys.readouterr().err == ""


def test_interrupted_between_classes() -> None:
    seen = []

    def interrupt(progress: ddkern.Progress) -> None:
        seen.append(progress)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(DATASET, Herding(ipc=1), random_state=0, progress=interrupt)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dataset": np.zeros(3)}, TypeError, "dataset is a ndarray; it must be an ImageDataset"),
        ({"method": "random"}, TypeError, r"method='random' is a name; .* make_method\(\)"),
        ({"method": Random}, TypeError, "method is Random; it must be an object with name"),
        ({"method": 3}, TypeError, "method is a int; it must be an object with name"),
        ({"normalization": 1.0}, TypeError, "normalization is a float; it must be a Normalization"),
        (
            {"normalization": Normalization.identity(3)},
            ValueError,
            r"dataset has shape \(1, 3, 2\) an image; its normalization is for 3 channels",
        ),
        ({"random_state": -1}, ValueError, "random_state=-1; a seed must be"),
        ({"random_state": True}, TypeError, "random_state=True is a bool"),
        ({"progress": 3}, TypeError, "progress=3 is a int"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"dataset": DATASET, "method": Random(ipc=1)} | changes
    with pytest.raises(error, match=message):
        distill(arguments.pop("dataset"), arguments.pop("method"), **arguments)
