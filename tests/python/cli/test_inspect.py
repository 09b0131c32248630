# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torch")

from ddkern.data import DistilledSet, Normalization, save_pt_files  # noqa: E402
from ddkern.report import draw_distilled_set  # noqa: E402
from helpers.distilled import make_set  # noqa: E402


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A set with everything that a set can have."""
    path = tmp_path / "full.safetensors"
    make_set().save(path)
    return path


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The same in the files of others."""
    save_pt_files(make_set(), tmp_path / "mtt", drop_weights=True)
    return tmp_path / "mtt"


def test_json_is_the_set(run, full: Path) -> None:
    shown = json.loads(run("inspect", full, "--json").stdout)
    distilled = DistilledSet.load(full)
    assert shown["provenance"] == asdict(distilled.provenance)
    assert shown["bytes"] == full.stat().st_size
    assert shown["images"] == 6
    assert shown["image_shape"] == [3, 4, 4]
    assert shown["stored_as"] == "float32"
    assert shown["normalization"] == {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "zca": False,
    }
    assert shown["soft_labels"] == {"kind": "probabilities", "dtype": "float32"}
    assert shown["student_lr"] == 0.0123
    assert [row["name"] for row in shown["classes"]] == ["cat", "dog/wolf", "owl"]
    for label, row in enumerate(shown["classes"]):
        weight = distilled.sample_weight[distilled.labels == label]
        assert (row["weight_min"], row["weight_max"]) == (weight.min(), weight.max())
        assert row["effective_images"] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())


def test_text_has_all_of_it(run, full: Path) -> None:
    lines = dict(
        line.split("  ", 1) for line in run("inspect", full).stdout.splitlines() if "  " in line
    )
    shown = {name.strip(): value.strip() for name, value in lines.items()}
    assert shown["set"].startswith(f"{full}, ")
    assert shown["images"] == "6 of 3 x 4 x 4, stored as float32"
    assert shown["method"] == "dm"
    assert shown["options"] == "ipc=2, sizes=[1, 2]"
    assert shown["seed"] == str(2**64 - 1)
    assert shown["source"] == "digits, split train"
    assert shown["source hash"] == "abc"
    assert shown["normalization"] == "mean 0.4, 0.5, 0.6 std 0.2, 0.25, 0.3"
    assert shown["protocol"] == "E1-dsa"
    assert shown["soft labels"] == "probabilities, float32"
    assert shown["student lr"] == "0.0123"
    assert shown["versions"] == "numpy 2.0"
    assert shown["commit"] == "0123"
    assert shown["dog/wolf"].split()[:3] == ["2", "33.3", "%"]


@pytest.mark.parametrize(("kind", "stored"), [("low_rank", "low_rank"), ("zca", "float32")])
def test_encodings_and_whitenings(run, tmp_path: Path, kind: str, stored: str) -> None:
    path = tmp_path / "set.safetensors"
    make_set(kind).save(path)
    shown = json.loads(run("inspect", path, "--json").stdout)
    assert shown["stored_as"] == stored
    assert shown["normalization"]["zca"] == (kind == "zca")
    assert ("ZCA whitening" in run("inspect", path).stdout) == (kind == "zca")


def test_brackets_in_a_class_name_are_no_markup(run, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    make_set(class_names=("[red]cat", "b", "c")).save(path)
    assert "[red]cat" in run("inspect", path).stdout


def test_effective_images_of_extreme_weights(run, tmp_path: Path) -> None:
    weight = np.array([1e-300, 1e-300, 1e200, 1e-300, 1e200, 1e-300])
    path = tmp_path / "set.safetensors"
    make_set(sample_weight=weight).save(path)
    rows = json.loads(run("inspect", path, "--json").stdout)["classes"]
    assert [row["effective_images"] for row in rows] == [2.0, 2.0, 2.0]


def test_many_classes_are_cut_with_a_note(run, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    labels = np.arange(30)
    images = np.zeros((30, 1, 2, 2), np.uint8)
    DistilledSet(images, labels, normalization=Normalization.identity(1)).save(path)
    lines = run("inspect", path).stdout.splitlines()
    assert lines[-1] == "and 10 more classes of 1 to 1 images; --json has them all"
    assert lines[-2].startswith("19 ")
    assert len(json.loads(run("inspect", path, "--json").stdout)["classes"]) == 30


def test_unknown_origin(run, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    images = np.zeros((2, 1, 2, 2), np.uint8)
    DistilledSet(images, np.arange(2), normalization=Normalization.identity(1)).save(path)
    shown = run("inspect", path).stdout
    for name in ("method", "seed", "source hash", "commit"):
        assert any(line.split("  ")[0] == name and "unknown" in line for line in shown.splitlines())


def test_sheet(run, fails, full: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    assert run("inspect", full, "--sheet", sheet).exit_code == 0
    expected = np.asarray(draw_distilled_set(DistilledSet.load(full)))
    with Image.open(sheet) as drawn:
        assert np.array_equal(np.asarray(drawn), expected)
    sheet.write_text("mine")
    assert fails("inspect", full, "--sheet", sheet) == (
        f"{sheet} exists already; --force replaces it"
    )
    assert sheet.read_text() == "mine"
    assert run("inspect", full, "--sheet", sheet, "--force").exit_code == 0
    assert sheet.read_bytes() != b"mine"


@pytest.mark.parametrize("channels", [1, 3])
def test_pt_files(run, tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(0).normal(size=(4, channels, 4, 4)).astype(np.float32)
    made = DistilledSet(
        images, np.repeat([0, 1], 2), normalization=Normalization.identity(channels)
    )
    save_pt_files(made, tmp_path / "dm")
    shown = json.loads(run("inspect", tmp_path / "dm", "--json").stdout)
    assert shown["image_shape"] == [channels, 4, 4]
    assert shown["normalization"] is None
    files = (tmp_path / "dm").iterdir()
    assert shown["bytes"] == sum(file.stat().st_size for file in files)
    assert "not told by .pt files" in run("inspect", tmp_path / "dm").stdout


def test_pt_files_with_their_normalization(run, published: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    done = run("inspect", published, "--normalization", "cifar10", "--sheet", sheet, "--json")
    assert json.loads(done.stdout)["normalization"]["mean"] == [0.4914, 0.4822, 0.4465]
    assert sheet.exists()


def test_sheet_of_pt_files_needs_the_normalization(fails, published: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert fails("inspect", published, "--sheet", sheet) == (
        f"--sheet={str(sheet)!r} needs --normalization: .pt files do not say what the images were "
        "normalised with"
    )
    assert not sheet.exists()


def test_sheet_must_be_png(fails, full: Path) -> None:
    assert fails("inspect", full, "--sheet", "sheet.jpg") == (
        "--sheet='sheet.jpg'; it must end in .png"
    )


def test_normalization_of_a_file_that_has_its_own(fails, full: Path) -> None:
    assert fails("inspect", full, "--normalization", "cifar10") == (
        f"SET: {full} has its own normalization; leave out --normalization"
    )


def test_fitted_normalization_has_no_images_here(fails, published: Path) -> None:
    assert fails("inspect", published, "--normalization", "zca") == (
        "--normalization='zca' is fitted to training images, and there are none here"
    )


def test_missing_set(fails) -> None:
    assert fails("inspect", "gone.safetensors") == (
        "SET='gone.safetensors' does not exist; it must be a .safetensors file, or .pt files"
    )


@pytest.mark.parametrize("name", ["set.safetensors", "set.txt"])
def test_file_of_something_else(fails, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("something else")
    message = fails("inspect", tmp_path / name)
    assert message.startswith("SET: ")
    assert str(tmp_path / name) in message


def test_folder_of_something_else(fails, tmp_path: Path) -> None:
    message = fails("inspect", tmp_path)
    assert message.startswith(f"SET: {tmp_path} does not hold images_best.pt")


def test_pt_files_of_something_else(fails, tmp_path: Path) -> None:
    for name in ("images_best.pt", "labels_best.pt"):
        (tmp_path / name).write_text("something else")
    message = fails("inspect", tmp_path)
    assert message.startswith(f"SET: {tmp_path / 'images_best.pt'} ")
