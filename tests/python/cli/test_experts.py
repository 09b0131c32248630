# SPDX-License-Identifier: Apache-2.0
"""``ddkern experts``, and ``ddkern distill`` with methods that learn images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("typer")
pytest.importorskip("safetensors")
pytest.importorskip("PIL")
pytest.importorskip("sklearn")

import torch

from ddkern.augment import DSA
from ddkern.data import DistilledSet, Normalization, open_dataset
from ddkern.distill import DC, DM, MTT, distill
from ddkern.experts import ExpertBuffer

Run = Callable[..., Any]

TRAIN = (
    *("experts", "train", "--dataset", "digits", "--epochs", 3, "--lr", 0.1, "--quiet"),
    *("--network", "convnet-d3:width=8,norm=group", "--augment", "crop_scale"),
)
MTT_OPTIONS = (
    *("distill", "--method", "mtt", "--dataset", "digits", "--ipc", 1, "--quiet"),
    *("--set", "student_steps=3", "--set", "max_start_epoch=2", "--set", "expert_epochs=1"),
    *("--set", "augment=crop_scale", "--set", "student-lr=0.1", "--set", "lr_images=10"),
)
NETWORK = ("--network", "convnet-d3:width=8,norm=group")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    from ddkern.cli.app import app

    folder = tmp_path_factory.mktemp("trained") / "experts"
    done = CliRunner().invoke(app, [*map(str, TRAIN), "--out", str(folder), "--n-experts", "2"])
    assert done.exit_code == 0, (done.stderr, done.exception)
    return folder


@pytest.fixture
def experts(trained: Path, tmp_path: Path) -> Path:
    """Two experts in a folder that a test may add to."""
    return shutil.copytree(trained, tmp_path / "experts")


def test_experts_are_trained_shown_and_added_to(run: Run, experts: Path) -> None:
    described = json.loads(run("experts", "show", experts, "--json").stdout)
    assert (described["numbers"], described["checkpoints"]) == ([0, 1], 4)
    assert described["conditions"]["recipe"]["augment"][0]["strategy"] == "crop_scale"
    assert set(described["accuracies"]) == {"0", "1"}
    text = run("experts", "show", experts).stdout
    assert "2 in" in text
    assert "test accuracy" in text
    again = run(*TRAIN, "--out", experts, "--n-experts", 3, "--json")
    assert json.loads(again.stdout)["numbers"] == [0, 1, 2]
    other = run(*TRAIN, "--out", experts, "--seed", 1)
    assert other.exit_code == 1
    assert "has a buffer with random_state=0, not 1" in other.stderr


def test_experts_for_flat_minima_side_by_side_in_half_the_space(run: Run, tmp_path: Path) -> None:
    options = ("--gsam", "0.01,0.3", "--at-once", 2, "--stored-as", "bfloat16", "--n-experts", 2)
    done = run(*TRAIN, "--out", tmp_path / "e", *options, "--json")
    described = json.loads(done.stdout)
    assert described["stored_as"] == "bfloat16"
    assert described["conditions"]["sharpness"] == {"type": "GSAM", "rho": 0.01, "alpha": 0.3}


def test_replay_buffers_are_imported(run: Run, experts: Path, tmp_path: Path) -> None:
    buffer = ExpertBuffer.open(experts)
    shapes = [p.shape for p in buffer.network().parameters()]
    content = [
        [
            [
                part.view(shape)
                for part, shape in zip(row.split([s.numel() for s in shapes]), shapes, strict=True)
            ]
            for row in (buffer.parameters(number, epoch) for epoch in range(4))
        ]
        for number in buffer.numbers
    ]
    torch.save(content, tmp_path / "replay_buffer_0.pt")
    options = ("--n-classes", 10, "--image-size", 8, "--in-channels", 1, *NETWORK, "--quiet")
    done = run(
        "experts", "import", tmp_path / "replay_buffer_0.pt", "--out", tmp_path / "in", *options
    )
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert "not tested" in done.stdout
    found = ExpertBuffer.open(tmp_path / "in")
    assert torch.equal(found.parameters(1, 2), buffer.parameters(1, 2))
    made = run(
        *MTT_OPTIONS, "--experts", tmp_path / "in", "--iterations", 1, "--out", tmp_path / "r"
    )
    assert made.exit_code == 0, (made.stderr, made.exception)


def test_mtt_is_that_of_python_and_its_run_is_recorded(
    run: Run, experts: Path, short: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    looks = ("--look-every", 3, "--look-protocol", short, "--set", "students=2")
    done = run(
        *MTT_OPTIONS, "--experts", experts, "--iterations", 4, "--out", out, "--seed", 5, *looks
    )
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert "learning rate of students: 0." in done.stdout
    made = DistilledSet.load(out / "set.safetensors")
    train = open_dataset("digits", split="train")
    method = MTT(
        ipc=1,
        experts=ExpertBuffer.open(experts),
        iterations=4,
        student_steps=3,
        max_start_epoch=2,
        expert_epochs=1,
        students=2,
        augment=DSA(strategy="crop_scale"),
        student_lr=0.1,
        lr_images=10,
    )
    expected = distill(train, method, normalization=Normalization.fit(train), random_state=5)
    assert np.array_equal(made.inputs(), expected.inputs())
    assert made.student_lr == expected.student_lr
    record = json.loads((out / "run.json").read_text())
    assert [(s["name"], s["detail"]["iterations"]) for s in record["stages"]] == [("mtt", 4)]
    history = json.loads((out / "history.json").read_text())
    assert [look["iteration"] for look in history["looks"]] == [3, 4]
    assert (out / "contact_sheet.png").exists()
    page = run("report", out)
    assert page.exit_code == 0, (page.stderr, page.exception)


def test_a_run_is_continued_by_more_iterations(run: Run, experts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = (*MTT_OPTIONS, "--experts", experts, "--out", out)
    assert run(*arguments, "--iterations", 2).exit_code == 0
    refused = run(*arguments, "--iterations", 4)
    assert "exists already; --force replaces it" in refused.stderr
    assert run(*arguments, "--iterations", 4, "--force").exit_code == 0
    whole = run(*MTT_OPTIONS, "--experts", experts, "--out", tmp_path / "whole", "--iterations", 4)
    assert whole.exit_code == 0
    sets = [DistilledSet.load(f / "set.safetensors").inputs() for f in (out, tmp_path / "whole")]
    assert np.array_equal(*sets)
    losses = json.loads((out / "history.json").read_text())["losses"]
    assert len(losses) == 4
    fewer = run(*arguments, "--iterations", 3, "--force")
    assert "iterations=3, but" in fewer.stderr


@pytest.mark.parametrize("name", ["dm", "dc"])
def test_dm_and_dc(run: Run, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    options = ("--dataset", "digits", "--ipc", 1, "--iterations", 2, *NETWORK, "--quiet")
    settings = ("--set", "batch_size=8", "--set", "augment=crop")
    done = run("distill", "--method", name, *options, *settings, "--out", out)
    assert done.exit_code == 0, (done.stderr, done.exception)
    train = open_dataset("digits", split="train")
    method = {"dm": DM, "dc": DC}[name](
        ipc=1,
        iterations=2,
        model_options={"width": 8, "norm": "group"},
        batch_size=8,
        augment=DSA(strategy="crop"),
    )
    expected = distill(train, method, normalization=Normalization.fit(train), random_state=0)
    assert np.array_equal(DistilledSet.load(out / "set.safetensors").inputs(), expected.inputs())


def test_a_plan_does_nothing(run: Run, experts: Path, tmp_path: Path) -> None:
    done = run(*MTT_OPTIONS, "--experts", experts, "--out", tmp_path / "no", "--dry-run")
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert "student_steps=3" in done.stdout
    assert "experts=convnet-d3" in done.stdout
    assert "together" in done.stdout
    as_json = run(
        *MTT_OPTIONS, "--experts", experts, "--out", tmp_path / "no", "--dry-run", "--json"
    )
    (stage,) = json.loads(as_json.stdout)["estimate"]
    assert stage["stage"] == "mtt"
    assert stage["seconds"] > 0
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "mtt"), "--experts is missing; --method mtt needs a folder"),
        (("--method", "mtt", "--experts", "none"), "--experts: none has no experts.json"),
        (("--method", "mtt", *NETWORK), "but the network is that of --experts"),
        (("--method", "dm", "--experts", "e"), "--experts='e' is for --method mtt"),
        (("--method", "random", "--iterations", 3), "--iterations='3' is for --method dc, dm, mtt"),
        (("--method", "ddoq", "--set", "a=1"), "--set='a=1' is for --method dc, dm, mtt"),
        (("--method", "dm", "--set", "lr"), "--set='lr'; it must be name=value"),
        (("--method", "dm", "--set", "device=cpu"), "device has an option of its own"),
        (("--method", "dm", "--set", "no_such=1"), "--set no_such=1: no_such is no option of dm"),
        (("--method", "dm", "--set", "lr_images=-1"), "--set lr_images=-1: lr_images=-1"),
        (("--method", "dm", "--set", "augment=blur"), "--set augment: strategy='blur'"),
        (("--method", "dm", "--look-protocol", "small"), "goes with --look-every"),
        (("--method", "dm", "--look-every", 0), "every=0"),
        (("--method", "dm", "--teacher", "convnet-d3"), "--teacher='convnet-d3' is for"),
        (("--method", "dm", "--features", "pca"), "compares no images by features"),
        (("--method", "dc", "--ipc", 7), "ipc=7 has no published loops"),
        (("--method", "dc", "--iterations", 0), "--iterations=0; it must be"),
    ],
)
def test_wrong_options(run: Run, tmp_path: Path, options: tuple, message: str) -> None:
    arguments = ("--dataset", "digits", "--out", tmp_path / "new", "--quiet")
    done = run("distill", *arguments, *(() if "--ipc" in options else ("--ipc", 1)), *options)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (tmp_path / "new").exists()


def test_published_settings_need_as_many_epochs(run: Run, experts: Path, tmp_path: Path) -> None:
    options = ("--dataset", "digits", "--ipc", 1, "--experts", experts, "--out", tmp_path / "n")
    done = run("distill", "--method", "mtt", "--published", "mnist", *options)
    assert "--published: dataset='mnist' with ipc=1 has no published settings" in done.stderr
    done = run("distill", "--method", "mtt", "--published", "cifar100", *options)
    assert "reach epoch 22, but the experts were trained for 3" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gsam", "1"), "--gsam: '1'; it must be two numbers between a comma"),
        (("--augment", "blur"), "--augment: strategy='blur'"),
        (("--epochs", 0), "--epochs=0"),
        (("--n-experts", 0), "--n-experts=0"),
        (("--network", "no-net"), "--network='no-net'"),
        (("--stored-as", "int8"), "dtype='int8'"),
    ],
)
def test_wrong_training(run: Run, tmp_path: Path, options: tuple, message: str) -> None:
    done = run(*TRAIN, "--out", tmp_path / "new", *options)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (tmp_path / "new").exists()
