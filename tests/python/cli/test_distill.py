# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer")
Image = pytest.importorskip("PIL.Image")
torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
save_file = pytest.importorskip("safetensors.torch").save_file

from ddkern.cli.distill import format_options  # noqa: E402
from ddkern.data import DistilledSet, Normalization, load_pt_files, open_dataset  # noqa: E402
from ddkern.distill import (  # noqa: E402
    NetworkFeatures,
    PcaFeatures,
    distill,
    make_method,
    method_names,
)
from ddkern.models import make_model  # noqa: E402
from ddkern.report import draw_distilled_set  # noqa: E402
from helpers.distilled import assert_same_set  # noqa: E402

DIGITS = ("--dataset", "digits", "--quiet")


def digits_network(seed: int = 0, width: int = 8):
    return make_model(
        "convnet-d3", n_classes=10, image_size=8, in_channels=1, seed=seed, width=width
    )


@pytest.mark.parametrize("method", ["random", "herding", "k-center", "k-means"])
def test_set_is_that_of_the_library(run, tmp_path: Path, method: str) -> None:
    done = run("distill", "--method", method, *DIGITS, "--ipc", 2, "--seed", 7, "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    expected = distill(open_dataset("digits"), make_method(method, ipc=2), random_state=7)
    assert_same_set(DistilledSet.load(tmp_path / "set.safetensors"), expected)
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert np.array_equal(np.asarray(sheet), np.asarray(draw_distilled_set(expected)))


def test_help_names_all_methods(run) -> None:
    shown = run("distill", "--help").stdout
    for name in method_names():
        assert name in shown


def test_forgetting_takes_scores(run, tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random(len(open_dataset("digits")))
    np.save(tmp_path / "scores.npy", scores)
    arguments = ("--scores", tmp_path / "scores.npy", "--out", tmp_path / "made")
    assert run("distill", "--method", "forgetting", *DIGITS, "--ipc", 2, *arguments).exit_code == 0
    expected = distill(
        open_dataset("digits"), make_method("forgetting", ipc=2, scores=scores), random_state=0
    )
    assert_same_set(DistilledSet.load(tmp_path / "made" / "set.safetensors"), expected)


def test_pca_features(run, tmp_path: Path) -> None:
    out = tmp_path / "pca.safetensors"
    features = ("--features", "pca", "--pca-components", 5)
    done = run("distill", "--method", "herding", *DIGITS, "--ipc", 3, *features, "--out", out)
    assert done.exit_code == 0, done.stderr
    method = make_method("herding", ipc=3, features=PcaFeatures(n_components=5))
    assert_same_set(DistilledSet.load(out), distill(open_dataset("digits"), method, random_state=0))


@pytest.mark.parametrize("trained", [False, True])
def test_network_features(run, tmp_path: Path, trained: bool) -> None:
    model = digits_network(seed=99 if trained else 3)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    weights = ("--network-weights", tmp_path / "weights.safetensors") if trained else ()
    out = tmp_path / "set.safetensors"
    features = ("--features", "network", "--network", "convnet-d3:width=8", "--device", "cpu")
    done = run(
        *("distill", "--method", "herding", *DIGITS, "--ipc", 2, "--seed", 3, "--out", out),
        *features,
        *weights,
    )
    assert done.exit_code == 0, done.stderr
    method = make_method("herding", ipc=2, features=NetworkFeatures(model=model, device="cpu"))
    assert_same_set(DistilledSet.load(out), distill(open_dataset("digits"), method, random_state=3))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fit", Normalization.fit),
        ("zca", lambda train: Normalization.fit(train, zca=True)),
        ("mnist", lambda train: Normalization.published("mnist")),
        ("identity", lambda train: Normalization.identity(1)),
    ],
)
def test_normalizations(run, tmp_path: Path, name: str, expected: Any) -> None:
    out = tmp_path / "set.safetensors"
    arguments = ("--ipc", 1, "--normalization", name, "--out", out)
    assert run("distill", "--method", "random", *DIGITS, *arguments).exit_code == 0
    found, wanted = DistilledSet.load(out).normalization, expected(open_dataset("digits"))
    assert np.array_equal(found.mean, wanted.mean)
    assert np.array_equal(found.std, wanted.std)
    assert (found.zca is None) == (wanted.zca is None)


def test_file_alone(run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "alone.safetensors"
    assert run("distill", "--method", "random", *DIGITS, "--out", out).exit_code == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["alone.safetensors"]


def test_json_is_the_set(run, tmp_path: Path) -> None:
    done = run("distill", "--method", "k-means", *DIGITS, "--ipc", 3, "--out", tmp_path, "--json")
    shown = json.loads(done.stdout)
    made = DistilledSet.load(tmp_path / "set.safetensors")
    assert shown["contact_sheet"] == str(tmp_path / "contact_sheet.png")
    assert shown["provenance"]["options"]["rows"] == made.provenance.options["rows"]
    assert shown["seconds"] > 0
    for label, row in enumerate(shown["classes"]):
        weight = made.sample_weight[made.labels == label]
        assert row["images"] == 3
        assert (row["weight_min"], row["weight_max"]) == (weight.min(), weight.max())
        assert row["effective_images"] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())


def test_table_has_the_numbers_of_the_json(run, tmp_path: Path) -> None:
    arguments = ("distill", "--method", "k-means", *DIGITS, "--ipc", 3, "--out", tmp_path)
    row = json.loads(run(*arguments, "--json").stdout)["classes"][4]
    lines = run(*arguments, "--force").stdout.splitlines()
    shown = next(line.split() for line in lines if line.startswith("4 "))
    assert shown == [
        "4",
        "3",
        "10.0",
        "%",
        f"{row['weight_min']:.4g}",
        f"{row['weight_max']:.4g}",
        f"{row['effective_images']:.2f}",
    ]


def test_progress_goes_to_standard_error(run, tmp_path: Path) -> None:
    arguments = ("--dataset", "digits", "--out", tmp_path, "--json")
    done = run("distill", "--method", "random", *arguments)
    assert "10 of 10 classes" in done.stderr
    json.loads(done.stdout)


def test_exports(run, tmp_path: Path) -> None:
    formats = [word for name in ("folder", "parquet", "pt") for word in ("--export", name)]
    done = run("distill", "--method", "random", *DIGITS, "--ipc", 2, "--out", tmp_path, *formats)
    assert done.exit_code == 0, done.stderr
    made = DistilledSet.load(tmp_path / "set.safetensors")
    for place in (tmp_path / "set.parquet", tmp_path / "set.images"):
        assert np.array_equal(open_dataset(place).images(), made.pixels())
    back = load_pt_files(tmp_path / "set.pt", normalization=made.normalization)
    assert np.array_equal(back.images, made.inputs())


def test_pt_export_refuses_unequal_weights_and_keeps_the_set(run, fails, tmp_path: Path) -> None:
    command = ("distill", "--method", "k-means", *DIGITS, "--ipc", 2, "--export", "pt")
    message = fails(*command, "--out", tmp_path)
    made = DistilledSet.load(tmp_path / "set.safetensors")
    least, most = made.sample_weight.min(), made.sample_weight.max()
    assert message == (
        f"--export=pt: weights range from {least:.4g} to {most:.4g}, and .pt files have none; "
        f"--drop-weights leaves them out (the set with its weights is in "
        f"{tmp_path / 'set.safetensors'})"
    )
    assert not (tmp_path / "set.pt").exists()
    assert run(*command, "--out", tmp_path, "--force", "--drop-weights").exit_code == 0
    assert (tmp_path / "set.pt" / "images_best.pt").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_dry_run_writes_nothing(run, tmp_path: Path, as_json: bool) -> None:
    out = tmp_path / "made"
    arguments = ("--ipc", 3, "--out", out, "--export", "parquet", "--dry-run")
    done = run(
        "distill", "--method", "k-means", *DIGITS, *arguments, *(["--json"] if as_json else [])
    )
    assert done.exit_code == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    if as_json:
        shown = json.loads(done.stdout)
        assert shown["options"] == make_method("k-means", ipc=3).options()
        assert shown["exports"] == {"parquet": str(out / "set.parquet")}
    else:
        assert "ipc=3" in done.stdout
        for name in ("set.safetensors", "contact_sheet.png", "set.parquet"):
            assert str(out / name) in done.stdout


def test_dry_run_checks_the_data_set(fails, tmp_path: Path) -> None:
    arguments = ("--ipc", 1000, "--out", tmp_path, "--dry-run")
    assert "ipc=1000" in fails("distill", "--method", "random", *DIGITS, *arguments)


@pytest.mark.parametrize("name", ["set.safetensors", "contact_sheet.png", "set.parquet"])
def test_existing_file_is_refused_before_any_work(
    run, fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    command = ("distill", "--method", "random", *DIGITS, "--out", tmp_path, "--export", "parquet")
    (tmp_path / name).write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr("ddkern.distill.distill", None)
        expected = f"{tmp_path / name} exists already; --force replaces it"
        assert fails(*command) == expected
    assert (tmp_path / name).read_text() == "mine"
    assert run(*command, "--force").exit_code == 0
    assert (tmp_path / name).read_bytes() != b"mine"


def test_folder_is_never_replaced(fails, tmp_path: Path) -> None:
    (tmp_path / "set.images").mkdir()
    command = ("distill", "--method", "random", *DIGITS, "--out", tmp_path, "--export", "folder")
    assert fails(*command, "--force") == (
        f"{tmp_path / 'set.images'} is a folder, which is not replaced; remove it first"
    )


ERRORS = {
    "method": (
        ("--method", "kmeans"),
        "--method='kmeans'; it must be one of 'd4m', 'dc', 'ddoq', 'dm', 'forgetting'",
    ),
    "ipc": (("--ipc", 0), "--ipc=0; it must be an integer of at least 1"),
    "seed": (("--seed", -1), "--seed=-1; a seed must be an integer with 0 <= seed < 2**64"),
    "dataset": (
        ("--dataset", "nowhere"),
        "--dataset: 'nowhere' does not exist; a data set is 'digits', or the path of a file or",
    ),
    "features": (
        ("--features", "edges"),
        "--features='edges'; it must be one of 'pixels', 'pca', 'network'",
    ),
    "features of a method without": (
        ("--method", "random", "--features", "pixels"),
        "--features='pixels', but --method random compares no images",
    ),
    "pca without components": (
        ("--features", "pca"),
        "--features=pca needs --pca-components, an integer of at least 1",
    ),
    "no components": (
        ("--features", "pca", "--pca-components", 0),
        "--pca-components=0; it must be an integer of at least 1",
    ),
    "components without pca": (
        ("--pca-components", 3),
        "--pca-components='3' is for --features pca",
    ),
    "network without features": (
        ("--network", "convnet-d3"),
        "--network='convnet-d3' is for --features network",
    ),
    "weights without features": (
        ("--network-weights", "w.safetensors"),
        "--network-weights='w.safetensors' is for --features network",
    ),
    "network": (("--features", "network", "--network", "net"), "--network='net'; it must be one"),
    "network option": (
        ("--features", "network", "--network", "convnet-d3:depth"),
        "--network='convnet-d3:depth'; after the colon it must have key=value pairs",
    ),
    "missing weights": (
        ("--features", "network", "--network-weights", "gone.safetensors"),
        "--network-weights='gone.safetensors' does not exist; it must be a file",
    ),
    "scores missing": (
        ("--method", "forgetting"),
        "--scores is missing; it goes with --method forgetting, which needs it",
    ),
    "scores of another method": (
        ("--scores", "s.npy"),
        "--scores='s.npy' is given; it goes with --method forgetting, which needs it",
    ),
    "scores gone": (
        ("--method", "forgetting", "--scores", "gone.npy"),
        "--scores='gone.npy' does not exist; it must be a .npy file",
    ),
    "normalization": (
        ("--normalization", "imagewoof"),
        "--normalization: name='imagewoof'; it must be one of 'cifar10'",
    ),
    "channels of the normalization": (
        ("--normalization", "cifar10"),
        "--normalization='cifar10': ",
    ),
    "export": (
        ("--export", "zip"),
        "--export='zip'; it must be one of 'folder', 'parquet', 'pt'",
    ),
    "device": (
        ("--features", "network", "--device", "warp"),
        "device='warp' cannot be used",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_error(fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    given, expected = ERRORS[case]
    defaults = {"--method": "k-means", "--dataset": "digits", "--out": "made"}
    for option in given[::2]:
        defaults.pop(option, None)
    message = fails("distill", *(word for pair in defaults.items() for word in pair), *given)
    assert expected in message
    if expected.startswith("--"):
        assert message.startswith(expected)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["imagewoof", "cifar10"])
def test_dry_run_checks_the_normalization(fails, tmp_path: Path, name: str) -> None:
    arguments = ("--normalization", name, "--out", tmp_path, "--dry-run")
    assert "--normalization" in fails("distill", "--method", "random", *DIGITS, *arguments)


def test_out_is_a_file(fails, tmp_path: Path) -> None:
    (tmp_path / "made").write_text("mine")
    message = fails("distill", "--method", "random", *DIGITS, "--out", tmp_path / "made")
    assert message == (
        f"--out={str(tmp_path / 'made')!r} is a file; it must be a folder, or a file that ends in "
        ".safetensors"
    )


def test_scores_that_are_no_array(fails, tmp_path: Path) -> None:
    (tmp_path / "scores.npy").write_text("no numbers")
    arguments = ("--scores", tmp_path / "scores.npy", "--out", tmp_path / "made")
    message = fails("distill", "--method", "forgetting", *DIGITS, *arguments)
    assert message.startswith(f"--scores={str(tmp_path / 'scores.npy')!r}: ")


def test_only_a_test_split_is_refused(fails, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for label in "ab":
        (folder / "test" / label).mkdir(parents=True)
        Image.new("L", (8, 8)).save(folder / "test" / label / "0.png")
    message = fails(
        "distill", "--method", "random", "--dataset", folder, "--out", tmp_path / "made"
    )
    assert (
        message == f"--dataset: {str(folder)!r} holds only the split 'test'; it must have 'train'"
    )


def test_weights_of_another_network(fails, tmp_path: Path) -> None:
    save_file(digits_network(width=4).state_dict(), tmp_path / "w.safetensors")
    features = ("--features", "network", "--network", "convnet-d3:width=8")
    weights = ("--network-weights", tmp_path / "w.safetensors", "--out", tmp_path / "made")
    message = fails("distill", "--method", "herding", *DIGITS, *features, *weights)
    assert "w.safetensors' holds the weights of another network than convnet-d3:width=8" in message
    assert "size mismatch" in message


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_weights_must_fit_exactly(fails, tmp_path: Path, change: str) -> None:
    state = digits_network().state_dict()
    name = next(iter(state))
    if change == "extra":
        state["extra"] = state[name].clone()
    else:
        del state[name]
    save_file(state, tmp_path / "w.safetensors")
    features = ("--features", "network", "--network", "convnet-d3:width=8")
    weights = ("--network-weights", tmp_path / "w.safetensors", "--out", tmp_path / "made")
    message = fails("distill", "--method", "herding", *DIGITS, *features, *weights)
    assert "holds the weights of another network than convnet-d3:width=8" in message
    assert ("extra" if change == "extra" else name) in message


def test_weights_that_are_no_file_of_tensors(fails, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_text("no tensors")
    weights = ("--features", "network", "--network-weights", tmp_path / "w.safetensors")
    message = fails("distill", "--method", "herding", *DIGITS, *weights, "--out", tmp_path / "made")
    assert "w.safetensors' is not a .safetensors file" in message


@pytest.mark.parametrize(
    ("package", "needed_by", "purpose"),
    [
        ("safetensors", (), "writing sets"),
        ("PIL.Image", (), "writing images"),
        ("pyarrow", ("--export", "parquet"), "writing parquet files"),
        ("torch", ("--export", "pt"), "writing .pt files"),
        ("torch", ("--features", "network"), "--features=network"),
    ],
)
def test_missing_package_is_told_before_the_work(
    fails,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    needed_by: tuple[str, ...],
    purpose: str,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.setattr("ddkern.distill.distill", None)
    message = fails("distill", "--method", "herding", *DIGITS, *needed_by, "--out", tmp_path / "o")
    name = package.partition(".")[0]
    assert message.startswith(f"{purpose} needs the package {name} (pip install")


def test_long_options_are_counted() -> None:
    options = {"ipc": 2, "rows": list(range(20)), "short": [1, 2]}
    assert format_options(options) == "ipc=2, rows=20 entries, short=[1, 2]"
