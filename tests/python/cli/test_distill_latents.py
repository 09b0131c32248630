# SPDX-License-Identifier: Apache-2.0
"""``ddkern distill`` with methods that quantize latents."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("PIL")
pytest.importorskip("sklearn")

from ddkern.data import DistilledSet, open_dataset
from ddkern.distill import DDOQ, distill
from ddkern.latents import IdentityCodec
from helpers.bits import assert_same_array_bits

Run = Callable[..., Any]
PIXELS = ("--dataset", "digits", "--ipc", 3, "--prior", "none", "--quiet")


def test_pixels_are_quantized_and_the_run_is_recorded(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("distill", "--method", "ddoq", *PIXELS, "--out", out, "--seed", 4)
    assert done.exit_code == 0, (done.stderr, done.exception)
    made = DistilledSet.load(out / "set.safetensors")
    expected = distill(
        open_dataset("digits"), DDOQ(ipc=3, codec=IdentityCodec((1, 8, 8))), random_state=4
    )
    assert_same_array_bits(made.images, expected.images, "images")
    assert_same_array_bits(made.sample_weight, expected.sample_weight, "weights")
    record = json.loads((out / "run.json").read_text())
    assert (record["format"], record["method"], record["random_state"]) == ("ddkern-run", "ddoq", 4)
    assert [s["name"] for s in record["stages"]] == ["encode", "quantize", "decode", "measure"]
    assert record["settings"]["ipc"] == 3
    assert record["dataset_hash"] == made.provenance.source_hash
    assert len(json.loads((out / "measures.json").read_text())["groups"]) == 10
    assert np.load(out / "nearest_real.npy").shape == (30, 1, 8, 8)


def test_the_command_of_a_run_makes_it_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('ipc = 2\nmethod = "ddoq"\n')
    out = tmp_path / "a run"
    given = ("--dataset", "digits", "--prior", "none", "--out", out, "--seed", 0, "--quiet")
    settings = ("--config", tmp_path / "c.toml", "--export", "pt", "--export", "folder")
    assert run("distill", *given, *settings, "--drop-weights").exit_code == 0
    command = json.loads((out / "run.json").read_text())["command"]
    words = shlex.split(command)
    assert words[:2] == ["ddkern", "distill"]
    first = DistilledSet.load(out / "set.safetensors")
    assert not {"--config", "--quiet", "--device", "--json"} & {*words}
    assert [words[i + 1] for i, w in enumerate(words) if w == "--export"] == ["pt", "folder"]
    assert "--drop-weights" in words
    shutil.rmtree(out)
    assert run(*words[1:]).exit_code == 0
    again = DistilledSet.load(out / "set.safetensors")
    assert len(again) == 20
    assert_same_array_bits(again.images, first.images, "images")
    assert json.loads((out / "run.json").read_text())["command"] == command


def test_images_of_several_sizes(
    run: Run, fails: Callable[..., str], short: str, tmp_path: Path
) -> None:
    from PIL import Image

    digits = open_dataset("digits")
    for split, rows in (("train", range(40)), ("test", range(40, 60))):
        for row in rows:
            folder = tmp_path / "digits" / split / str(row % 2)
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(digits.images([row])[0, 0])
            picture.resize((20, 12 + row % 3)).save(folder / f"{row}.png")
    data = ("--dataset", tmp_path / "digits")
    where = (*data, "--prior", "none", "--ipc", 2, "--quiet", "--out", tmp_path / "r")
    message = fails("distill", "--method", "ddoq", *where)
    assert "(1, 13, 20), those for training (1, 12, 20); --size and --channels make" in message
    only = ("--dataset", tmp_path / "digits" / "train", "--ipc", 2, "--out", tmp_path / "p")
    assert "pass size=... (--size) to scale" in fails("distill", "--method", "herding", *only)
    how = ("--size", 8, "--channels", 3)
    done = run("distill", "--method", "ddoq", *where, *how)
    assert done.exit_code == 0, (done.stderr, done.exception)
    path = tmp_path / "r" / "set.safetensors"
    assert DistilledSet.load(path).image_shape == (3, 8, 8)
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert "--size 8 --channels 3" in record["command"]
    done = run("evaluate", path, *data, *how, "--protocol", short, "--quiet", "--json")
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert fails("evaluate", path, *data).endswith(
        "images of shape (1, 13, 20), those of SET have (3, 8, 8); give --size 8 --channels 3"
    )
    assert run("inspect", path, *data, *how, "--quiet").exit_code == 0
    assert fails("inspect", path, "--size", 8) == "--size=8 needs --dataset, images to compare with"
    digits_alone = ("--dataset", "digits", "--out", tmp_path / "q")
    message = fails("distill", "--method", "random", *digits_alone, "--size", 9)
    assert message == "--size=9 is for encoded images, not --dataset digits"
    for wrong, rule in (
        ("--size", "at least 1 and at most 4096"),
        ("--channels", "must be 1 or 3"),
    ):
        assert rule in fails("distill", "--method", "random", *only, wrong, 5000)
    pytest.importorskip("diffusers")
    fit = run("prior", "fit", *data, *how, "--out", tmp_path / "prior", "--dry-run", "--json")
    assert fit.exit_code == 0, (fit.stderr, fit.exception)
    assert "image_shape=(3, 8, 8)" in fit.stdout


def test_a_coreset_has_nothing_of_another_run(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "r"
    ddoq = ("distill", "--method", "ddoq", *PIXELS, "--out", out)
    assert run(*ddoq).exit_code == 0
    found = {name: (out / name).read_bytes() for name in ("measures.json", "nearest_real.npy")}
    accuracy = out / "accuracies" / "ours.json"
    accuracy.parent.mkdir()
    accuracy.write_text("{}")
    assert run(*ddoq, "--force").exit_code == 0
    assert accuracy.exists(), "the same set has the same accuracies"
    coreset = ("distill", "--method", "random", "--dataset", "digits", "--ipc", 2, "--out", out)
    assert run(*coreset, "--quiet").exit_code == 1
    assert run(*coreset, "--quiet", "--force").exit_code == 0
    record = json.loads((out / "run.json").read_text())
    assert (record["method"], record["stages"]) == ("random", [])
    assert record["command"].startswith("ddkern distill --method random --dataset digits")
    assert not accuracy.exists()
    assert not [name for name in found if (out / name).exists()]
    assert run(*ddoq, "--force").exit_code == 0
    assert {name: (out / name).read_bytes() for name in found} == found


def test_json_is_all_there_is_on_standard_output(run: Run, tmp_path: Path) -> None:
    done = run("distill", "--method", "d4m", *PIXELS, "--out", tmp_path / "r", "--json")
    assert done.exit_code == 0, done.exception
    content = json.loads(done.stdout)
    assert content["provenance"]["method"] == "d4m"
    assert {row["weight_max"] for row in content["classes"]} == {1.0}


def test_a_teacher_is_trained_once(run: Run, tmp_path: Path) -> None:
    from ddkern.cli import latents

    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "_TEACHER_STEPS", 1)
        arguments = ("distill", "--method", "ddoq", *PIXELS, "--out", out, "--teacher")
        assert run(*arguments, "convnet-d3").exit_code == 0
        made = DistilledSet.load(out / "set.safetensors")
        assert made.soft_labels is not None
        assert made.soft_labels.shape == (30, 10)
        (teacher,) = (out / "teacher").glob("*.safetensors")
        before = teacher.stat().st_mtime_ns
        assert run(*arguments, "convnet-d3", "--force").exit_code == 0
        assert teacher.stat().st_mtime_ns == before
    stages = [s["name"] for s in json.loads((out / "run.json").read_text())["stages"]]
    assert stages == ["teacher", "encode", "quantize", "decode", "relabel", "measure"]


def test_a_checkpoint_of_diffusers(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from helpers.tiny_diffusers import save_tiny_dit

    save_tiny_dit(tmp_path / "dit", n_classes=10, channels=3, size=32)
    done = run(
        *("distill", "--method", "ddoq", "--dataset", "digits", "--ipc", 1, "--quiet"),
        *("--prior", tmp_path / "dit", "--steps", 2, "--strength", 0.5, "--guidance", 1.5),
        *("--out", tmp_path / "run"),
    )
    assert done.exit_code == 0, (done.stderr, done.exception)
    made = DistilledSet.load(tmp_path / "run" / "set.safetensors")
    options = made.provenance.options
    assert options["decoding"] == {"strength": 0.5, "steps": 2, "guidance": 1.5}
    assert options["codec"]["name"] == "dit"
    assert made.image_shape == (1, 8, 8)


def test_principal_components_and_rows_of_a_label_table(
    run: Run, fails: Callable[..., str], tmp_path: Path
) -> None:
    from ddkern.latents import PcaCodec

    PcaCodec.fit(open_dataset("digits"), 8).save(tmp_path / "pca.safetensors")
    arguments = ("distill", "--method", "ddoq", "--dataset", "digits", "--ipc", 1, "--quiet")
    done = run(*arguments, "--prior", tmp_path / "pca.safetensors", "--out", tmp_path / "a")
    assert done.exit_code == 0, (done.stderr, done.exception)
    pytest.importorskip("diffusers")
    from helpers.tiny_diffusers import save_tiny_dit

    save_tiny_dit(tmp_path / "dit", n_classes=12, channels=3, size=32)
    dit = (*arguments, "--prior", tmp_path / "dit", "--steps", 1, "--out", tmp_path / "b")
    assert "label table of the transformer 12; give classes" in fails(*dit)
    rows = ",".join(map(str, range(2, 12)))
    done = run(*dit, "--prior-classes", rows)
    assert done.exit_code == 0, (done.stderr, done.exception)
    made = DistilledSet.load(tmp_path / "b" / "set.safetensors")
    assert made.provenance.options["codec"]["classes"] == list(range(2, 12))


@pytest.mark.slow
def test_a_prior_is_fitted_where_none_is_given(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("matplotlib")
    from ddkern.priors import fit, validation

    monkeypatch.setattr(validation, "_CLASSIFIER_STEPS", 1)
    monkeypatch.setattr(fit, "_SAMPLES_VALIDATED", 1)
    out = tmp_path / "run"
    arguments = ("distill", "--method", "ddoq", "--dataset", "digits", "--ipc", 2, "--out", out)
    plan = run(*arguments, "--effort", 0.002, "--dry-run", "--json")
    assert plan.exit_code == 0, (plan.stderr, plan.exception)
    estimate = json.loads(plan.stdout)["estimate"]
    assert [stage["stage"] for stage in estimate] == ["prior", "encode", "decode"]
    assert all(stage["seconds"] > 0 and stage["memory"] > 1e7 for stage in estimate)
    assert not out.exists()
    done = run(*arguments, "--effort", 0.002)
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert "together" in done.stdout, "the plan is shown before the work"
    assert (out / "prior" / "samples.png").exists()
    stages = json.loads((out / "run.json").read_text())["stages"]
    assert stages[0]["name"] == "prior"
    assert "sample_accuracy" in stages[0]["detail"]


def test_options_from_a_file(run: Run, fails: Callable[..., str], tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[distill]\nmethod = "ddoq"\ndataset = "digits"\nprior = "none"\nipc = 5\n')
    done = run("distill", "--config", config, "--ipc", 2, "--out", tmp_path / "r", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert len(DistilledSet.load(tmp_path / "r" / "set.safetensors")) == 20
    config.write_text("images = 3\n")
    message = fails("distill", "--config", config, "--out", tmp_path / "q")
    assert "has 'images'; ddkern distill has no such option" in message
    config.write_text("images = \n")
    assert "is not TOML" in fails("distill", "--config", config, "--out", tmp_path / "q")
    message = fails("distill", "--config", tmp_path / "none.toml", "--out", tmp_path / "q")
    assert "does not exist; it must be a TOML file" in message


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("random", ("--strength", 0.5), "--strength=0.5 is for --method ddoq and d4m"),
        ("k-means", ("--prior", "fit"), "--prior='fit' is for --method ddoq and d4m"),
        ("random", ("--sample",), "--sample=True is for --method ddoq and d4m"),
        ("ddoq", ("--clustering", "lloyd"), "--clustering='lloyd' is for --method d4m"),
        ("d4m", ("--clustering", "k"), "--clustering='k'; it must be one of"),
        ("ddoq", ("--scores", "s.npy"), "--scores='s.npy' is for --method forgetting"),
        ("ddoq", ("--features", "pixels"), "--features='pixels', but --method ddoq"),
        ("ddoq", ("--strength", 2), "--strength=2.0; it must be"),
        ("ddoq", ("--steps", 0), "--steps=0"),
        ("ddoq", ("--guidance", 0.5), "--guidance=0.5"),
        ("ddoq", ("--teacher", "x"), "--teacher='x'; it must be one of 'none'"),
        ("ddoq", ("--effort", 0.5, "--prior", "none"), "--effort=0.5 is for --prior fit"),
        ("ddoq", ("--steps", 3, "--prior", "none"), "--steps=3, but --prior none has no model"),
        ("ddoq", ("--prior-classes", "1,2"), "--prior-classes='1,2', but a prior that is fitted"),
        ("ddoq", ("--prior", "x", "--prior-classes", "1,a"), "--prior-classes='1,a'; it must be"),
        ("random", ("--prior-classes", "1"), "--prior-classes='1' is for --method ddoq"),
        ("ddoq", ("--ipc", 1000, "--prior", "none"), "ipc=1000, but class"),
        ("ddoq", ("--prior", "no/such"), "no/such"),
        ("whole", ("--ipc", 3), "--ipc=3, but --method whole takes all images"),
    ],
)
def test_error(
    method: str,
    options: tuple[object, ...],
    message: str,
    fails: Callable[..., str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    arguments = ("distill", "--method", method, "--dataset", "digits", "--out", out, "--quiet")
    assert message in fails(*arguments, *options)
    assert not (out / "set.safetensors").exists()


def test_a_damaged_test_split_is_no_missing_one(tmp_path: Path) -> None:
    from ddkern.cli.sets import DataOptions

    train = open_dataset("digits")
    arrays = {"train_images": train.images(), "train_labels": train.labels}
    np.savez(tmp_path / "alone.npz", **arrays)
    assert DataOptions(str(tmp_path / "alone.npz")).test() is None
    np.savez(
        tmp_path / "both.npz", **arrays, test_images=train.images(), test_labels=train.labels[1:]
    )
    with pytest.raises(ValueError, match="label"):
        DataOptions(str(tmp_path / "both.npz")).test()
    assert DataOptions("digits").test() is not None


def test_a_run_needs_a_folder(fails: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    message = fails("distill", "--method", "ddoq", *PIXELS, "--out", path)
    assert "with --method ddoq it must be a folder" in message


def test_the_whole_data_set(run: Run, tmp_path: Path) -> None:
    done = run("distill", "--method", "whole", "--dataset", "digits", "--out", tmp_path / "w")
    assert done.exit_code == 0, done.stderr
    train = open_dataset("digits", split="train")
    made = DistilledSet.load(tmp_path / "w" / "set.safetensors")
    np.testing.assert_array_equal(made.class_counts, train.class_counts)
