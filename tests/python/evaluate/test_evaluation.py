# SPDX-License-Identifier: Apache-2.0
"""From a set and test images to accuracies, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ddkern.augment import CutMix  # noqa: E402
from ddkern.data import DistilledSet, Provenance  # noqa: E402
from ddkern.evaluate import Evaluation, evaluate, evaluate_across, plan_evaluation  # noqa: E402
from helpers.students import NAMES, TinyNet, make_bars, make_protocol, make_task  # noqa: E402

TEST = make_task()


def run(**changes) -> Evaluation:
    arguments = {"distilled": make_bars(), "test": TEST, "protocol": make_protocol()}
    return evaluate(**(arguments | {"model": TinyNet, "precision": "float32"} | changes))


def test_students_learn_the_task() -> None:
    result = run()
    assert len(result.networks) == 3
    assert result.mean > 0.8
    assert result.last == tuple(n.accuracies[-1] for n in result.networks)
    assert result.mean == pytest.approx(np.mean(result.last))
    assert result.std == pytest.approx(np.std(result.last))
    assert len({n.seed for n in result.networks}) == 3


def test_same_arguments_same_numbers_and_more_networks_change_none() -> None:
    first, more = run(), run(n_networks=4)
    assert [n.seed for n in more.networks[:3]] == [n.seed for n in first.networks]
    assert more.last[:3] == first.last
    assert [n.loss for n in run().networks] == [n.loss for n in first.networks]
    assert [n.loss for n in run(random_state=1).networks] != [n.loss for n in first.networks]


def test_looks_change_what_is_seen_not_what_is_trained() -> None:
    one, six = run(), run(looks=6)
    assert one.last == six.last
    assert [len(n.accuracies) for n in six.networks] == [6, 6, 6]
    assert six.networks[0].epochs == (0, 1, 2, 3, 4, 5)
    assert six.best == tuple(max(n.accuracies) for n in six.networks)
    assert one.best == one.last
    assert "best on test" in str(six)
    assert "best on test" not in str(one)


def test_weights_matter_and_zero_weight_drops_an_image() -> None:
    bars = make_bars()
    weight = np.ones(12)
    weight[:3] = 0
    images = bars.images.copy()
    images[:3] = 255 - images[:3]
    spoiled = replace(bars, images=images, sample_weight=weight)
    uniform, density = run(distilled=spoiled), run(distilled=spoiled, weights="density")
    same = run(distilled=replace(bars, sample_weight=weight), weights="density")
    assert [n.loss for n in density.networks] == pytest.approx([n.loss for n in same.networks])
    assert density.networks[0].loss != uniform.networks[0].loss
    assert density.conditions["weights"] == "density"


def test_student_lr_of_the_set_is_used_where_the_protocol_says() -> None:
    bars = make_bars(student_lr=1e-6)
    ignored = run(distilled=bars)
    used = run(distilled=bars, protocol=make_protocol(uses_student_lr=True))
    assert ignored.conditions["lr"] == 0.05
    assert used.conditions["lr"] == 1e-6
    assert used.networks[0].loss > ignored.networks[0].loss


def test_soft_labels_are_learned_unless_hard_ones_are_asked_for() -> None:
    soft = np.full((12, 3), 1 / 3, np.float32)
    bars = make_bars(soft_labels=soft)
    learned, hard = run(distilled=bars), run(distilled=bars, labels="hard")
    assert learned.conditions["labels"] == "soft"
    assert learned.networks[0].loss == pytest.approx(np.log(3), abs=0.3)
    assert hard.last == run().last


def test_logits_are_made_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(12, 3)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    a = run(distilled=make_bars(soft_labels=logits, soft_label_kind="logits"))
    b = run(distilled=make_bars(soft_labels=probabilities))
    assert [n.loss for n in a.networks] == pytest.approx([n.loss for n in b.networks], rel=1e-4)


@pytest.mark.parametrize("labels", ["stored", "online"])
def test_teacher_protocols(labels: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = TinyNet(3)
    recipe = replace(make_protocol().recipe, loss="kl", temperature=4.0, mixing=CutMix())
    protocol = make_protocol(
        recipe=recipe, labels=labels, data_seed=42 if labels == "stored" else None
    )
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    result = run(protocol=protocol, teacher=teacher, state=tmp_path)
    assert result.conditions["labels"] == "teacher"
    assert len(list(tmp_path.glob("labels/*.npy"))) == (6 if labels == "stored" else 0)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    again = run(protocol=protocol, teacher=teacher)
    assert again.last == result.last


def test_real_rows_of_the_set_are_found() -> None:
    bars = make_bars(provenance=Provenance(options={"real_rows": [0, 5]}))
    data = plan_evaluation(bars, TEST, make_protocol()).training_set()
    assert data.real is not None
    assert data.real.nonzero().flatten().tolist() == [0, 5]


def test_results_are_read_back(tmp_path: Path) -> None:
    result = run(looks=2)
    path = tmp_path / "result.json"
    result.save(path)
    assert Evaluation.load(path) == result
    content = json.loads(path.read_text())
    assert content["summary"]["last_mean"] == result.mean
    for name in ("threads", "deterministic_algorithms", "cudnn_deterministic", "versions"):
        assert name in content["environment"]
    path.write_text("{}")
    with pytest.raises(ValueError, match="is not an evaluation"):
        Evaluation.load(path)


def test_standard_error() -> None:
    result = run()
    assert result.standard_error == pytest.approx(np.std(result.last, ddof=1) / 3**0.5)
    assert run(n_networks=1).standard_error == 0.0


def test_a_second_call_trains_what_is_missing(tmp_path: Path) -> None:
    whole = run(state=tmp_path / "whole")
    state = tmp_path / "parted"
    reports = []

    def stop_in_second(progress) -> None:
        reports.append(progress)
        if progress.note.startswith("network 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(state=state, progress=stop_in_second)
    assert sorted(p.name for p in state.glob("network-*")) == ["network-0000.json"]
    reports.clear()
    again = run(state=state, progress=reports.append)
    assert {r.note.split(",")[0] for r in reports} == {"network 2 of 3", "network 3 of 3"}
    assert (reports[-1].done, reports[-1].total, reports[-1].unit) == (12, 12, "epochs")
    assert again.last == whole.last
    assert [n.loss for n in again.networks] == [n.loss for n in whole.networks]
    reports.clear()
    assert run(state=state, progress=reports.append).last == whole.last
    assert reports == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"weights": "sqrt"}, "weights"),
        ({"distilled": make_bars(seed=2)}, "set_hash"),
        ({"test": make_task(seed=3)}, "test_hash"),
        ({"random_state": 5}, "seeds"),
        ({"looks": 3}, "test_epochs"),
        ({"protocol": make_protocol(n_networks=3, title="other")}, "protocol_digest"),
    ],
)
def test_a_state_of_another_evaluation_is_refused(tmp_path: Path, change, name: str) -> None:
    run(state=tmp_path, n_networks=1)
    with pytest.raises(ValueError, match=f"holds an evaluation with {name}="):
        run(state=tmp_path, **({"n_networks": 1} | change))


def test_a_state_must_be_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ValueError, match="is a file; it must be a folder"):
        run(state=path)


# So many that a process which is killed after a few has others to train.
N_KILLED = 20

KILLED = """
import sys
sys.path.insert(0, {tests!r})
from helpers.students import *
from ddkern.evaluate import evaluate
import torch
torch.set_num_threads(1)
evaluate(make_bars(), make_task(), make_protocol(n_networks={n}), model=TinyNet,
         precision="float32", state={state!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3])
def test_killed_at_any_moment_nothing_finished_is_lost(tmp_path: Path, after: int) -> None:
    state = tmp_path / "state"
    tests = str(Path(__file__).resolve().parents[2])
    program = KILLED.format(tests=tests, state=str(state), n=N_KILLED)
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        deadline = time.monotonic() + 120
        while len(list(state.glob("network-*.json"))) < after:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = {p.name: p.read_bytes() for p in state.glob("network-*.json")}
    assert after <= len(kept) < N_KILLED
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        protocol = make_protocol(n_networks=N_KILLED)
        resumed = run(state=state, protocol=protocol)
        whole = run(protocol=protocol)
    finally:
        torch.set_num_threads(threads)
    assert {name: (state / name).read_bytes() for name in kept} == kept
    assert resumed.last == whole.last
    assert [n.loss for n in resumed.networks] == [n.loss for n in whole.networks]


def test_architectures_side_by_side(tmp_path: Path) -> None:
    recipe = replace(make_protocol().recipe, epochs=1)
    protocol = make_protocol(recipe=recipe, n_networks=1)
    names = ["convnet-d3", "resnet-18"]
    table = evaluate_across(
        make_bars(zoom=2),
        make_task(9, zoom=2),
        names,
        protocol,
        state=tmp_path,
        precision="float32",
    )
    assert list(table) == names
    assert [e.conditions["model"] for e in table.values()] == names
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    with pytest.raises(ValueError, match="ResNet-18 needs sides of at least 9"):
        evaluate_across(make_bars(), TEST, names, protocol)
    with pytest.raises(TypeError, match="model is chosen by models"):
        evaluate_across(make_bars(), TEST, names, protocol, model="convnet-d3")


def test_the_plan_counts_and_estimates() -> None:
    plan = plan_evaluation(make_bars(), TEST, make_protocol(), model=TinyNet, looks=2)
    shown = plan.describe()
    assert (shown["networks"], shown["epochs"], shown["steps"]) == (3, 6, 6 * 3 * 3)
    assert shown["images trained on"] == 6 * 12 * 3
    assert shown["images tested"] == 60 * 2 * 3
    assert 0 < plan.estimate_seconds() < 60


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"protocol": "E1-dsa@9"}, ValueError, "no version '9'"),
        ({"distilled": 3}, TypeError, "distilled is a int; it must be a DistilledSet"),
        ({"test": None}, TypeError, "test is a NoneType; it must be a ImageDataset"),
        ({"weights": "mass"}, ValueError, "weights='mass'; it must be one of 'uniform'"),
        ({"labels": "mixed"}, ValueError, "labels='mixed'"),
        ({"labels": "soft"}, ValueError, "labels='soft', but the set has no soft labels"),
        ({"n_networks": 0}, ValueError, "n_networks=0"),
        ({"looks": 7}, ValueError, "looks=7.*at most 6"),
        ({"random_state": -1}, ValueError, "random_state=-1"),
        ({"model": TinyNet(3)}, TypeError, "model is a TinyNet with weights"),
        (
            {"model": lambda n_classes: TinyNet(n_classes + 1)},
            ValueError,
            r"gave \(2, 4\) for 2 images",
        ),
        ({"model": "lenet"}, ValueError, "model='lenet'; the names are"),
        ({"teacher": TinyNet(3)}, ValueError, "trains on the labels of the set"),
        ({"protocol": "E2"}, ValueError, "teacher=None; protocol 'E2@1'"),
        ({"protocol": "E9"}, ValueError, "n_train=None"),
        ({"device": "abacus"}, ValueError, "device='abacus'"),
        ({"precision": "half"}, ValueError, "precision='half'"),
        (
            {"protocol": make_protocol(sides=(28, 32)), "model": None},
            ValueError,
            "sides of 28 to 32",
        ),
    ],
)
def test_bad_arguments(change, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(**change)


def test_images_of_another_shape() -> None:
    bars = make_bars()
    large = replace(bars, images=np.zeros((12, 3, 16, 16), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(3, 16, 16\), but test has .*\(3, 8, 8\)"):
        run(distilled=large)


def test_other_classes() -> None:
    renamed = make_bars(class_names=("left", "right", "middle"))
    with pytest.raises(
        ValueError, match="class 1 of distilled is 'right', but that of test is 'mid"
    ):
        run(distilled=renamed)
    numbered = make_bars(class_names=("0", "1", "2"))
    assert run(distilled=numbered, n_networks=1).networks
    fewer = DistilledSet(
        make_bars().images[:2],
        np.array([0, 1]),
        normalization=make_bars().normalization,
        class_names=NAMES[:2],
    )
    with pytest.raises(ValueError, match="distilled has 2 classes, but test has 3"):
        run(distilled=fewer)


def test_targets_of_a_regression_are_refused() -> None:
    bars = make_bars(soft_labels=np.zeros((12, 3), np.float32), soft_label_kind="targets")
    with pytest.raises(ValueError, match="targets of a regression"):
        run(distilled=bars)
    assert run(distilled=bars, labels="hard", n_networks=1).networks


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.full(12, -1.0), r"sample_weight\[0\] is -1.0; weights must be finite"),
        (np.full(12, np.nan), r"sample_weight\[0\] is nan; weights must be finite"),
        (
            np.ones(11),
            r"sample_weight has shape \(11,\); it must hold one number for each of the 12",
        ),
    ],
)
def test_bad_weights_never_reach_an_evaluation(weight: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_bars(sample_weight=weight)
