# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torch")

from ddkern import quantize  # noqa: E402
from ddkern.data import DistilledSet, Normalization, open_dataset, save_pt_files  # noqa: E402
from ddkern.evaluate import QuantizationMeasures, measure_quantization  # noqa: E402
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


def test_the_folder_of_a_run_is_its_set(run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    make_set().save(tmp_path / "run" / "set.safetensors")
    (tmp_path / "run" / "notes.pt").write_bytes(b"not a set")
    shown = json.loads(run("inspect", tmp_path / "run", "--json").stdout)
    assert shown["set"] == str(tmp_path / "run" / "set.safetensors")


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


@pytest.fixture
def of_run(made: Path) -> tuple[Path, QuantizationMeasures]:
    """The set of a run, and the measures beside it: of pixels, with one atom a class far off."""
    train = open_dataset("digits")
    pixels = train.images().reshape(len(train), -1).astype(np.float32)
    found = quantize(pixels, 2, groups=train.labels, random_state=0)
    centroids = found.centroids.copy()
    centroids[::2] += 5
    owners = np.repeat(np.arange(10), 2)
    measures = measure_quantization(
        pixels, centroids, found.weights, groups=train.labels, centroid_groups=owners
    )
    path = made.rename(made.with_name("set.safetensors"))
    path.with_name("measures.json").write_text(json.dumps(measures.as_dict()))
    return path, measures


def _rows(text: str, title: str) -> dict[str, list[str]]:
    """Cells of the table below a line that begins with ``title``, by class."""
    lines = text.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith(title)) + 4
    table = lines[begin : lines.index("", begin) if "" in lines[begin:] else None]
    return {line.split()[0]: re.split(r"\s{2,}", line)[1:] for line in table}


def test_measures_of_a_run(run, of_run: tuple[Path, QuantizationMeasures]) -> None:
    path, measures = of_run
    shown = json.loads(run("inspect", path, "--json").stdout)
    assert shown["measures"] == measures.as_dict()
    assert shown["measures_of_images"] is None
    rows = _rows(run("inspect", path).stdout, "measures of the run")
    assert list(rows) == [*map(str, range(10)), "all"]
    content = measures.as_dict()
    for cells, values in zip(rows.values(), [*content["groups"], content["summary"]], strict=True):
        assert float(cells[0]) == pytest.approx(values["distortion"], rel=1e-3)
        assert float(cells[1].removeprefix("<= ")) == pytest.approx(values["w2_upper"], rel=1e-3)
        uniform = float(cells[2].removeprefix(">= "))
        assert uniform == pytest.approx(values["w2_uniform_lower"], rel=1e-3)
        gain = float(cells[3].removeprefix(">= "))
        assert gain == pytest.approx(100 * values["gain_lower"], abs=0.06)
        assert float(cells[4]) == pytest.approx(values["stationarity"], rel=0.1)
        least, largest = (float(end) / 100 for end in cells[5].split(".."))
        assert (least, largest) == pytest.approx((values["mass_min"], values["mass_max"]), rel=0.1)
        effective, of = cells[6].split(" of ")
        assert float(effective) == pytest.approx(values["effective_atoms"], abs=0.006)
        assert of == "2"


def test_bounds_that_digits_tell_apart(run, of_run: tuple[Path, QuantizationMeasures]) -> None:
    path, measures = of_run
    wider = replace(
        measures,
        w2_lower=0.9 * measures.w2_lower,
        w2_uniform_lower=np.where(np.arange(10) == 3, 0, measures.w2_uniform_lower),
    )
    path.with_name("measures.json").write_text(json.dumps(wider.as_dict()))
    rows = _rows(run("inspect", path).stdout, "measures of the run")
    assert rows["0"][1] == f"<= {wider.w2_upper[0]:.4g}"
    assert rows["0"][3] == f">= {100 * wider.gain_lower[0]:.1f}"
    # The distance with uniform weights may be 0.
    assert rows["3"][2:4] == [">= 0", ">= -inf"]


def test_measures_beside_another_set(run, of_run: tuple[Path, QuantizationMeasures]) -> None:
    path, _ = of_run
    other = path.rename(path.with_name("other.safetensors"))
    assert json.loads(run("inspect", other, "--json").stdout)["measures"] is None
    assert "measures of the run" not in run("inspect", other).stdout


def test_measures_of_something_else(run, fails, of_run: tuple[Path, QuantizationMeasures]) -> None:
    path, measures = of_run
    beside = path.with_name("measures.json")
    content = measures.as_dict()
    beside.write_text(json.dumps({**content, "groups": content["groups"][1:]}))
    assert fails("inspect", path) == (
        f"{beside}: it has measures of 9 groups; they must be the 10 classes of the set"
    )
    beside.write_text('{"format": "ddkern-evaluation"}')
    assert fails("inspect", path) == f"{beside}: content is not a record of measures of version 1"
    beside.write_text("measures")
    assert fails("inspect", path).startswith(f"{beside}: ")


@pytest.mark.parametrize(
    ("options", "features"),
    [
        ((), {"name": "pixels"}),
        (("--features", "pixels"), {"name": "pixels"}),
        (
            ("--features", "pca", "--pca-components", "7"),
            {"name": "pca", "n_components": 7},
        ),
    ],
)
def test_measures_of_images(run, made: Path, options: tuple[str, ...], features) -> None:
    train, distilled = open_dataset("digits"), DistilledSet.load(made)
    inputs = distilled.normalization.apply(train.images()).reshape(len(train), -1)
    own = distilled.inputs().reshape(len(distilled), -1)
    if features["name"] == "pca":
        _, _, basis = np.linalg.svd(inputs - inputs.mean(axis=0), full_matrices=False)
        inputs, own = inputs @ basis[:7].T, own @ basis[:7].T
    expected = measure_quantization(
        inputs,
        own,
        distilled.sample_weight,
        groups=train.labels,
        centroid_groups=distilled.labels,
    )
    done = run("inspect", made, "--dataset", "digits", *options, "--json", "--quiet")
    assert done.stderr == ""
    shown = json.loads(done.stdout)
    assert shown["measures"] is None
    found = shown["measures_of_images"]
    assert (found.pop("dataset"), found.pop("split")) == ("digits", "train")
    assert found.pop("features") == features
    measures = QuantizationMeasures.from_dict(found)
    for field in fields(QuantizationMeasures):
        np.testing.assert_allclose(
            getattr(measures, field.name), getattr(expected, field.name), rtol=1e-4
        )
    # The images are real ones, near the means of their cells: weights are masses of other cells.
    assert (measures.w2_lower**2 > measures.distortion).any()
    title = "measures of the images, against 'digits' (train, 1438 images), by "
    rows = _rows(run("inspect", made, "--dataset", "digits", *options).stdout, title)
    assert list(rows) == [*map(str, range(10)), "all"]


def test_real_images_have_no_distance(run, tmp_path: Path) -> None:
    train = open_dataset("digits")
    path = tmp_path / "all.safetensors"
    DistilledSet(train.images(), train.labels, normalization=Normalization.fit(train)).save(path)
    for options in ((), ("--features", "pca", "--pca-components", "7")):
        done = run("inspect", path, "--dataset", "digits", *options, "--json")
        summary = json.loads(done.stdout)["measures_of_images"]["summary"]
        assert summary["distortion"] <= 1e-15
        assert summary["n_points"] == summary["n_atoms"] == 1438


def test_measures_of_many_classes_are_cut_with_a_note(run, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (46, 1, 4, 4), np.uint8)
    labels = np.repeat(np.arange(23), 2)
    np.savez(tmp_path / "many.npz", images=images, labels=labels)
    distilled = DistilledSet(images[::2], labels[::2], normalization=Normalization.identity(1))
    distilled.save(folder / "set.safetensors")
    pixels = images.reshape(46, -1) / 255
    measures = measure_quantization(
        pixels, pixels[::2], np.ones(23), groups=labels, centroid_groups=labels[::2]
    )
    (folder / "measures.json").write_text(json.dumps(measures.as_dict()))
    text = run("inspect", folder / "set.safetensors").stdout
    assert text.splitlines()[-1] == "and 3 more classes; --json has them all"
    assert text.splitlines()[-2].startswith("all ")
    assert text.splitlines()[-3].startswith("19 ")


def test_pt_files_against_real_images(run, fails, tmp_path: Path) -> None:
    train = open_dataset("digits")
    norm = Normalization.fit(train)
    chosen = np.concatenate([train.rows_of_class(label)[:3] for label in range(10)])
    pixels = DistilledSet(train.images(chosen), train.labels[chosen], normalization=norm)
    files, native = tmp_path / "dm", tmp_path / "set.safetensors"
    save_pt_files(pixels, files)
    pixels.save(native)
    assert fails("inspect", files, "--dataset", "digits") == (
        "--dataset='digits' needs --normalization: .pt files do not say what the images were "
        "normalised with"
    )
    shown = [
        json.loads(run("inspect", *arguments, "--dataset", "digits", "--json").stdout)
        for arguments in ((files, "--normalization", "fit"), (native,))
    ]
    found, expected = (entry["measures_of_images"]["summary"] for entry in shown)
    assert found == pytest.approx(expected, rel=1e-4)


def test_set_of_another_task(fails, full: Path, tmp_path: Path) -> None:
    assert fails("inspect", full, "--dataset", "digits") == (
        "SET: distilled has images of shape (3, 4, 4), but --dataset has images of shape "
        "(1, 8, 8); they must be equal"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--features", "network", "--dataset", "digits"),
            "--features='network'; it must be one of 'pixels', 'pca'",
        ),
        (("--features", "pixels"), "--features='pixels' needs --dataset, images to compare with"),
        (
            ("--features", "pca", "--dataset", "digits"),
            "--pca-components is missing; it goes with --features pca, which needs it",
        ),
        (
            ("--pca-components", 3, "--dataset", "digits"),
            "--pca-components is 3; it goes with --features pca, which needs it",
        ),
        (
            ("--features", "pca", "--pca-components", 0, "--dataset", "digits"),
            "--pca-components=0; it must be an integer of at least 1",
        ),
        (
            ("--features", "pca", "--pca-components", 65, "--dataset", "digits"),
            "n_components=65; it must be at most 64 for 1438 images of 64 values",
        ),
    ],
)
def test_options_of_measures(fails, made: Path, options, message: str) -> None:
    assert fails("inspect", made, "--quiet", *options) == message


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
