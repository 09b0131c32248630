# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
Image = pytest.importorskip("PIL.Image")
torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
save_file = pytest.importorskip("safetensors.torch").save_file

from ddkern.data import DistilledSet, open_dataset, save_pt_files  # noqa: E402
from ddkern.evaluate import (  # noqa: E402
    Evaluation,
    evaluate,
    evaluation,
    get_protocol,
    plan_evaluation,
    protocols,
)
from ddkern.models import make_model  # noqa: E402

DIGITS = ("--dataset", "digits", "--quiet", "--precision", "float32", "--device", "cpu")


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(short: str, made: Path) -> tuple[object, ...]:
    return ("evaluate", made, *DIGITS, "--protocol", short)


def without_time(content: dict[str, Any]) -> dict[str, Any]:
    """An evaluation without what differs between two runs of it."""
    networks = [{k: v for k, v in n.items() if k != "seconds"} for n in content["networks"]]
    return {**content, "networks": networks}


def by_library(path: Path, protocol: str, **arguments: Any) -> dict[str, Any]:
    """What ``ddkern.evaluate`` gives, as JSON gives it back."""
    arguments = {"precision": "float32", "device": "cpu", "n_train": 1438, **arguments}
    test = open_dataset("digits", split=arguments.pop("split", "test"))
    found = evaluate(DistilledSet.load(path), test, protocol, **arguments)
    return without_time(json.loads(json.dumps(found.as_dict())))


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ((), {}),
        (
            ("--networks", 2, "--looks", 2, "--seed", 5, "--weights", "density"),
            {"n_networks": 2, "looks": 2, "random_state": 5, "weights": "density"},
        ),
        (
            ("--networks", 1, "--split", "train", "--labels", "hard", "--weights", "sqrt"),
            {"n_networks": 1, "split": "train", "labels": "hard", "weights": "sqrt"},
        ),
        (
            ("--networks", 1, "--arch", "convnet-d3:width=4,norm=batch"),
            {
                "n_networks": 1,
                "model": "convnet-d3",
                "model_options": {"width": 4, "norm": "batch"},
            },
        ),
    ],
)
def test_json_is_the_evaluation_of_the_library(
    run, command, made: Path, options: tuple[object, ...], arguments: dict[str, Any]
) -> None:
    done = run(*command, *options, "--json")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    assert without_time(json.loads(done.stdout)) == by_library(made, "short", **arguments)


def test_table_has_the_numbers_of_the_json(run, command) -> None:
    shown = run(*command, "--looks", 2).stdout.splitlines()
    found = json.loads(run(*command, "--looks", 2, "--json").stdout)
    assert shown[0] == "short@1: a few epochs"
    assert "20 images, tested on 'digits' (test), weights uniform, labels hard" in shown[1]
    rows = [line.split() for line in shown]
    for network in found["networks"]:
        row = next(row for row in rows if row[:1] == [str(network["index"] + 1)])
        accuracies = network["accuracies"]
        assert row[1:4] == [
            str(network["seed"]),
            f"{100 * accuracies[-1]:.2f}",
            f"{100 * max(accuracies):.2f}",
        ]
    summary = found["summary"]
    last = f"{100 * summary['last_mean']:.2f} +- {100 * summary['last_std']:.2f}"
    best = f"{100 * summary['best_on_test_mean']:.2f} +- {100 * summary['best_on_test_std']:.2f}"
    assert " ".join(rows[-1]).startswith(f"mean +- std {last} {best}")


def test_out_holds_the_evaluation(run, command, tmp_path: Path) -> None:
    out = tmp_path / "results" / "short.json"
    shown = json.loads(run(*command, "--networks", 1, "--out", out, "--json").stdout)
    assert json.loads(out.read_text()) == shown
    assert json.loads(json.dumps(Evaluation.load(out).as_dict())) == shown


def test_same_command_may_replace_its_result_but_no_other(
    run, fails, command, tmp_path: Path
) -> None:
    out = tmp_path / "short.json"
    assert run(*command, "--networks", 1, "--out", out).exit_code == 0
    assert run(*command, "--networks", 1, "--out", out).exit_code == 0
    before = out.read_bytes()
    refused = (
        f"--out={str(out)!r} exists and is not the result of this evaluation; choose another file"
    )
    assert fails(*command, "--networks", 1, "--seed", 1, "--out", out) == refused
    assert out.read_bytes() == before
    out.write_text("mine")
    assert fails(*command, "--networks", 1, "--out", out) == refused
    assert out.read_text() == "mine"


def test_architectures(run, command, made: Path, tmp_path: Path) -> None:
    archs = ("--arch", "convnet-d3:width=4", "--arch", "convnet-d3:width=8")
    out = tmp_path / "across.json"
    rest = ("--networks", 2, "--out", out)
    shown = json.loads(run(*command, *archs, *rest, "--json").stdout)
    assert list(shown) == ["convnet-d3:width=4", "convnet-d3:width=8"]
    for width in (4, 8):
        expected = by_library(
            made, "short", model="convnet-d3", model_options={"width": width}, n_networks=2
        )
        assert without_time(shown[f"convnet-d3:width={width}"]) == expected
    assert json.loads(out.read_text()) == shown
    table = [" ".join(line.split()) for line in run(*command, *archs, *rest).stdout.splitlines()]
    for arch, found in shown.items():
        mean, std = found["summary"]["last_mean"], found["summary"]["last_std"]
        assert any(
            line.startswith(f"{arch} 2 {100 * mean:.2f} +- {100 * std:.2f} ") for line in table
        )


def test_state_lies_beside_the_set(run, command, made: Path) -> None:
    assert run(*command, "--networks", 1).exit_code == 0
    assert run(*command, "--networks", 1, "--seed", 1).exit_code == 0
    folders = sorted(made.with_name("pairs.evaluations").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert folder.name.startswith("short@1-")
        assert files_below(folder) == ["conditions.json", "network-0000.json"]


@pytest.mark.parametrize("archs", [1, 2])
def test_chosen_state(run, command, tmp_path: Path, archs: int) -> None:
    names = ["convnet-d3:width=4", "convnet-d3:width=8"][:archs]
    options = [word for name in names for word in ("--arch", name)]
    state = tmp_path / "state"
    assert run(*command, *options, "--networks", 1, "--state", state).exit_code == 0
    kept = ["conditions.json", "network-0000.json"]
    expected = kept if archs == 1 else [f"{name}/{file}" for name in names for file in kept]
    assert files_below(state) == expected


def test_state_of_another_evaluation(run, fails, command, tmp_path: Path) -> None:
    state = ("--networks", 1, "--state", tmp_path / "state")
    assert run(*command, *state).exit_code == 0
    message = fails(*command, *state, "--seed", 1)
    assert message.startswith(
        f"--state: state={str(tmp_path / 'state')!r} holds an evaluation with"
    )


def test_finished_networks_are_not_trained_again(
    run, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(*command, "--json").stdout
    monkeypatch.setattr(evaluation, "_train_network", None)
    assert run(*command, "--json").stdout == first


@pytest.mark.parametrize("archs", [0, 2])
def test_interrupt_tells_where_it_goes_on(
    run, command, monkeypatch: pytest.MonkeyPatch, archs: int
) -> None:
    trained = []
    real = evaluation._train_network

    def interrupted(plan: Any, index: int, *rest: Any) -> Any:
        if len(trained) == (1 if archs == 0 else 4):
            raise KeyboardInterrupt
        trained.append(index)
        return real(plan, index, *rest)

    names = ["convnet-d3:width=4", "convnet-d3:width=8"][:archs]
    options = [word for name in names for word in ("--arch", name)]
    monkeypatch.setattr(evaluation, "_train_network", interrupted)
    done = run(*command, *options, "--json")
    where = "" if archs == 0 else " with convnet-d3:width=8"
    assert done.exit_code == 130
    assert done.stdout == ""
    assert done.stderr == (f"interrupted; repeat the command to go on from network 2 of 3{where}\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_dry_run_shows_the_plan_and_does_nothing(
    run, command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setattr("ddkern.evaluate.run_plan", None)
    before = files_below(tmp_path)
    out = ("--out", tmp_path / "out.json", "--dry-run")
    done = run(*command, *out, *(["--json"] if as_json else []))
    assert done.exit_code == 0, done.stderr
    assert files_below(tmp_path) == before
    assert not made.with_name("pairs.evaluations").exists()
    plan = plan_evaluation(
        DistilledSet.load(made),
        open_dataset("digits", split="test"),
        "short",
        precision="float32",
        device="cpu",
    )
    if as_json:
        shown = json.loads(done.stdout)
        assert shown.pop("estimated seconds") > 0
        assert shown == plan.describe()
    else:
        shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
        for name, value in plan.describe().items():
            assert f"{name} {value}" in shown
        assert shown[-1].startswith("estimated seconds ")


def test_dry_run_of_architectures(run, command) -> None:
    archs = ("--arch", "convnet-d3:width=4", "--arch", "convnet-d3:width=8", "--dry-run")
    shown = json.loads(run(*command, *archs, "--json").stdout)
    assert list(shown) == ["convnet-d3:width=4", "convnet-d3:width=8"]
    assert run(*command, *archs).stdout.count("estimated seconds") == 2


def test_progress_goes_to_standard_error(run, short: str, made: Path) -> None:
    arguments = ("--dataset", "digits", "--protocol", short, "--networks", 1, "--json")
    done = run("evaluate", made, *arguments)
    assert "evaluate short@1: 4 of 4 epochs" in done.stderr
    json.loads(done.stdout)


def test_threads(run, command) -> None:
    found = json.loads(run(*command, "--networks", 1, "--threads", 2, "--json").stdout)
    assert found["environment"]["threads"] == 2


@pytest.fixture
def by_share(monkeypatch: pytest.MonkeyPatch, short: str) -> str:
    protocol = replace(get_protocol(short), id="share", epochs_by_share=((20 / 1438, 2), (1.0, 3)))
    monkeypatch.setattr(protocols, "_PROTOCOLS", (*protocols._PROTOCOLS, protocol))
    return "share"


def test_share_of_the_training_images(run, by_share: str, made: Path) -> None:
    command = ("evaluate", made, *DIGITS, "--protocol", by_share, "--networks", 1, "--json")
    assert json.loads(run(*command).stdout)["conditions"]["epochs"] == 2


def only_test_images(folder: Path, side: int) -> Path:
    """A data set with a test split alone: one grey image of each digit."""
    for label in range(10):
        (folder / "test" / str(label)).mkdir(parents=True)
        Image.new("L", (side, side), label).save(folder / "test" / str(label) / "0.png")
    return folder


def test_share_without_training_images(fails, by_share: str, made: Path, tmp_path: Path) -> None:
    folder = only_test_images(tmp_path / "data", 8)
    message = fails("evaluate", made, "--dataset", folder, "--protocol", by_share)
    assert message.startswith("n_train=None; the epochs of protocol 'share@1' depend on")


def test_test_images_alone_are_enough(run, short: str, made: Path, tmp_path: Path) -> None:
    folder = only_test_images(tmp_path / "data", 8)
    command = ("evaluate", made, "--dataset", folder, "--protocol", short, "--networks", 1)
    assert run(*command, "--quiet").exit_code == 0


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch, short: str) -> str:
    model = get_protocol("E2-online")
    protocol = replace(
        get_protocol(short),
        id="taught",
        labels="online",
        recipe=replace(model.recipe, epochs=3),
    )
    monkeypatch.setattr(protocols, "_PROTOCOLS", (*protocols._PROTOCOLS, protocol))
    return "taught"


def test_teacher(run, taught: str, made: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"width": 4, "norm": "batch"}
    teacher = make_model("convnet-d3", n_classes=10, image_size=8, in_channels=1, seed=8, **options)
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    done = run(
        *("evaluate", made, *DIGITS, "--protocol", taught, "--networks", 1, "--json"),
        *("--teacher", tmp_path / "teacher.safetensors"),
        *("--teacher-arch", "convnet-d3:width=4,norm=batch"),
    )
    assert done.exit_code == 0, done.stderr
    expected = by_library(made, taught, n_networks=1, teacher=teacher)
    assert without_time(json.loads(done.stdout)) == expected


def test_pt_files(run, fails, short: str, made: Path, tmp_path: Path) -> None:
    save_pt_files(DistilledSet.load(made), tmp_path / "mtt", drop_weights=True)
    command = ("evaluate", tmp_path / "mtt", *DIGITS, "--protocol", short, "--networks", 1)
    assert "give --normalization" in fails(*command)
    found = json.loads(run(*command, "--normalization", "fit", "--json").stdout)
    expected = by_library(made, short, n_networks=1)
    assert found["networks"][0]["accuracies"] == expected["networks"][0]["accuracies"]
    assert (tmp_path / "mtt.evaluations").is_dir()


ERRORS = {
    "set": (
        ("gone.safetensors",),
        "SET='gone.safetensors' does not exist; it must be a .safetensors file, or .pt files",
    ),
    "dataset": (("--dataset", "nowhere"), "--dataset: 'nowhere' does not exist; a data set is"),
    "split": (
        ("--split", "validation"),
        "--dataset: digits has no split 'validation'; its splits are 'train', 'test', 'all'",
    ),
    "protocol": (("--protocol", "E7"), "protocol='E7'; the protocols are E1-dc, E1-dsa"),
    "protocol version": (("--protocol", "E1-dc@9"), "protocol='E1-dc@9': E1-dc has no version '9'"),
    "weights": (
        ("--weights", "mass"),
        "--weights='mass'; it must be one of 'uniform', 'density', 'sqrt'",
    ),
    "labels": (("--labels", "no"), "--labels='no'; it must be one of 'auto', 'hard', 'soft'"),
    "soft labels": (("--labels", "soft"), "labels='soft', but the set has no soft labels"),
    "networks": (("--networks", 0), "--networks=0; it must be an integer of at least 1"),
    "looks": (("--looks", 0), "--looks=0; it must be an integer of at least 1"),
    "more looks than epochs": (("--looks", 5), "looks=5; it must be an integer of at least 1 and"),
    "seed": (("--seed", -1), "--seed=-1; a seed must be an integer with 0 <= seed < 2**64"),
    "precision": (
        ("--precision", "half"),
        "--precision='half'; it must be one of 'auto', 'float32', 'bfloat16'",
    ),
    "device": (("--device", "warp"), "device='warp' cannot be used: "),
    "threads": (("--threads", 0), "--threads=0; it must be an integer of at least 1"),
    "arch": (("--arch", "net"), "--arch='net'; it must be one of 'alexnet'"),
    "arch option": (
        ("--arch", "convnet-d3:widht=4"),
        "--arch='convnet-d3:widht=4': widht is no option of convnet-d3",
    ),
    "arch for other images": (("--arch", "resnet-18"), "--arch='resnet-18': image_size=(8, 8)"),
    "arch twice": (
        ("--arch", "convnet-d3", "--arch", "convnet-d3"),
        "--arch='convnet-d3' is given twice; once is enough",
    ),
    "teacher arch missing": (
        ("--teacher", "t.safetensors"),
        "--teacher-arch is missing; a teacher needs --teacher and --teacher-arch",
    ),
    "teacher missing": (
        ("--teacher-arch", "convnet-d3"),
        "--teacher is missing; a teacher needs --teacher and --teacher-arch",
    ),
    "teacher gone": (
        ("--teacher", "gone.safetensors", "--teacher-arch", "convnet-d3"),
        "--teacher='gone.safetensors' does not exist; it must be a file",
    ),
    "teacher arch": (
        ("--teacher", "t.safetensors", "--teacher-arch", "net"),
        "--teacher-arch='net'; it must be one of 'alexnet'",
    ),
    "no teacher": (
        ("--protocol", "E2"),
        "teacher=None; protocol 'E2@1' trains on the labels that a teacher gives",
    ),
    "normalization": (
        ("--normalization", "fit"),
        "has its own normalization; leave out --normalization",
    ),
    "state is a file": (("--state", "mine.txt"), "--state: state='mine.txt' is a file"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_error(
    fails, short: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ddkern.evaluate.run_plan", None)
    (tmp_path / "mine.txt").write_text("mine")
    given, expected = ERRORS[case]
    defaults = {"--dataset": "digits", "--protocol": short}
    for option in given[::2]:
        defaults.pop(str(option), None)
    words = [word for pair in defaults.items() for word in pair]
    path = () if case == "set" else (made,)
    message = fails("evaluate", *path, *words, *given)
    assert expected in message
    if case != "normalization":
        assert message.startswith(expected)
    assert not made.with_name("pairs.evaluations").exists()


def test_wrong_architecture_is_told_before_the_first_is_trained(fails, command) -> None:
    message = fails(*command, "--arch", "convnet-d3:width=4", "--arch", "resnet-18")
    assert message.startswith("--arch='resnet-18': image_size=(8, 8)")


def test_set_and_data_set_of_different_images(
    run, fails, short: str, made: Path, tmp_path: Path
) -> None:
    folder = only_test_images(tmp_path / "data", 9)
    command = ("evaluate", made, "--dataset", folder, "--protocol", short)
    message = fails(*command)
    assert "has images of shape (1, 9, 9), those of SET have (1, 8, 8)" in message
    assert message.endswith("; give --size 8 --channels 1")
    assert fails(*command, "--size", 7) == message.replace("9, 9", "7, 7")
    assert run(*command, "--size", 8, "--quiet").exit_code == 0


def test_missing_torch_is_told(fails, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    message = fails("evaluate", made, "--dataset", "digits")
    assert message == "evaluating needs the package torch (pip install 'ddkern[torch]')"
