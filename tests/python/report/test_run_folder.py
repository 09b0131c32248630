# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _package in ("PIL", "safetensors", "sklearn", "torch"):
    pytest.importorskip(_package)

from ddkern.data import DistilledSet  # noqa: E402
from ddkern.report import read_run  # noqa: E402
from helpers.bits import assert_same_array_bits  # noqa: E402
from helpers.distilled import assert_same_set, make_set  # noqa: E402
from helpers.runs import (  # noqa: E402
    SETTINGS,
    STAGES,
    make_digits_set,
    make_evaluation,
    make_measures,
    make_record,
    write_evaluation,
    write_json,
    write_run,
)


@pytest.fixture(scope="module")
def digits() -> DistilledSet:
    return make_digits_set()


@pytest.fixture
def folder(tmp_path: Path, digits: DistilledSet) -> Path:
    return write_run(tmp_path / "run", digits)


def test_everything_is_read(folder: Path, digits: DistilledSet) -> None:
    run = read_run(folder)
    assert run.name == "run"
    assert_same_set(run.distilled, digits)
    assert (run.method, run.dataset, run.random_state) == ("ddoq", "digits", 7)
    assert run.dataset_hash == digits.provenance.source_hash
    assert run.settings == SETTINGS
    assert [(stage.name, stage.seconds) for stage in run.stages] == list(STAGES)
    assert run.stages[1].detail == {"rows": 101, "rmse": 0.123456}
    assert run.versions == {"python": "3.12.1", "ddkern": "0.9"}
    assert run.nearest_real is not None
    assert_same_array_bits(run.nearest_real, np.load(folder / "nearest_real.npy"), "nearest_real")
    assert run.measures is not None
    assert run.measures.as_dict() == make_measures(digits).as_dict()
    assert [line.label for line in run.evaluations] == [
        "DDOQ, density",
        "DDOQ, uniform",
        "random",
        "one network",
        "DDOQ, ResNet",
    ]
    assert [line.of_this_set for line in run.evaluations] == [True, True, False, False, False]
    assert run.evaluations[0].evaluation == make_evaluation((0.912, 0.918, 0.915), digits)
    assert {name: (p.width, p.height) for name, p in run.pictures.items()} == {
        "curves": (30, 20),
        "samples": (31, 20),
        "reconstructions": (32, 20),
    }
    for name, picture in run.pictures.items():
        assert picture.content == (folder / "prior" / f"{name}.png").read_bytes()


def test_set_alone_tells_where_it_comes_from(tmp_path: Path, digits: DistilledSet) -> None:
    digits.save(tmp_path / "set.safetensors")
    run = read_run(tmp_path)
    made = digits.provenance
    assert (run.method, run.dataset, run.random_state) == ("k-means", "digits", 0)
    assert (run.dataset_hash, run.settings) == (made.source_hash, made.options)
    assert run.versions.items() >= made.versions.items()
    assert run.versions.get("commit") == made.commit
    assert run.stages == run.evaluations == ()
    assert run.nearest_real is None
    assert run.measures is None
    assert run.pictures == {}


@pytest.mark.parametrize(
    "part",
    ["run.json", "nearest_real.npy", "measures.json", "accuracies", "prior", "prior/samples.png"],
)
def test_each_part_may_be_missing(folder: Path, part: str) -> None:
    path = folder / part
    files = [path] if path.is_file() else list(path.iterdir())
    for file in files:
        file.unlink()
    run = read_run(folder)
    assert (run.method == "k-means") == (part == "run.json")
    assert (run.stages == ()) == (part == "run.json")
    assert (run.nearest_real is None) == (part == "nearest_real.npy")
    assert (run.measures is None) == (part == "measures.json")
    assert (run.evaluations == ()) == (part == "accuracies")
    assert len(run.pictures) == {"prior": 0, "prior/samples.png": 2}.get(part, 3)


def test_folder_must_hold_a_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone does not exist; .* set\.safetensors"):
        read_run(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"set\.safetensors does not exist; .* must have"):
        read_run(tmp_path)
    file = tmp_path / "set.safetensors"
    file.write_bytes(b"no")
    with pytest.raises(ValueError, match=r"set\.safetensors is a file; it must be a folder"):
        read_run(file)
    with pytest.raises(ValueError, match=r"set\.safetensors is not a \.safetensors file"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "else"}, "format='else'; it must be 'ddkern-run'"),
        ({"format_version": 2}, "format_version=2; it must be 1"),
        ({"method": None}, "method is a NoneType; it must be a str"),
        ({"dataset": 3}, "dataset is a int; it must be a str"),
        ({"settings": []}, "settings is a list; it must be a dict"),
        ({"versions": "1"}, "versions is a str; it must be a dict"),
        ({"stages": {}}, "stages is a dict; it must be a list"),
        ({"stages": [3]}, r"stages\[0\] is a int; it must be a dict"),
        ({"stages": [{"seconds": 1, "detail": {}}]}, r"no stages\[0\]\.name; it must be a str"),
        (
            {"stages": [{"name": "a", "seconds": -1, "detail": {}}]},
            r"stages\[0\]\.seconds=-1\.0; it must be a finite number of at least 0",
        ),
        ({"stages": [{"name": "a", "detail": {}}]}, r"stages\[0\]\.seconds=None is a NoneType"),
        (
            {"stages": [{"name": "a", "seconds": 1, "detail": 2}]},
            r"stages\[0\]\.detail is a int; it must be a dict",
        ),
        ({"command": None}, "command is a NoneType; it must be a str"),
        ({"random_state": -1}, r"random_state.*0 <= seed < 2\*\*64|seed=-1"),
        ({"random_state": "1"}, "random_state='1' is a str"),
        ({"dataset_hash": "ab"}, "dataset_hash='ab', but the set was made from data of hash"),
    ],
)
def test_faults_of_the_record(folder: Path, digits, changes: Any, message: str) -> None:
    write_json(folder / "run.json", make_record(digits, **changes))
    with pytest.raises(ValueError, match=message) as caught:
        read_run(folder)
    assert str(caught.value).startswith(str(folder / "run.json"))


@pytest.mark.parametrize("name", ["method", "dataset", "dataset_hash", "settings", "stages"])
def test_record_must_be_complete(folder: Path, digits: DistilledSet, name: str) -> None:
    record = make_record(digits)
    del record[name]
    write_json(folder / "run.json", record)
    with pytest.raises(ValueError, match=rf"run\.json has no {name}; it must be"):
        read_run(folder)


def test_any_record_fits_a_set_of_unknown_origin(folder: Path) -> None:
    plain = make_set("pixels")
    plain = DistilledSet(plain.images, plain.labels, normalization=plain.normalization)
    plain.save(folder / "set.safetensors")
    for name in ("nearest_real.npy", "measures.json"):
        (folder / name).unlink()
    assert read_run(folder).dataset == "digits"


@pytest.mark.parametrize("name", ["run.json", "measures.json", "accuracies/1-density.json"])
@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not JSON"), ("[1]", "is a list; it must be a dict")]
)
def test_broken_json(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_run(folder)
    assert str(caught.value).startswith(str(folder / name))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((40, 1, 8, 8), np.float32),
            r"float32 of shape \(40, 1, 8, 8\); it must be uint8",
        ),
        (np.zeros((39, 1, 8, 8), np.uint8), r"\(39, 1, 8, 8\); it must be .*\(40, 1, 8, 8\)"),
        (np.zeros((40, 1, 9, 8), np.uint8), r"\(40, 1, 9, 8\); it must be .*\(40, 1, 8, 8\)"),
    ],
)
def test_nearest_images_of_another_set(folder: Path, images: np.ndarray, message: str) -> None:
    np.save(folder / "nearest_real.npy", images)
    with pytest.raises(ValueError, match=rf"nearest_real\.npy holds .*{message}"):
        read_run(folder)


def _write_text(path: Path) -> None:
    path.write_text("no", encoding="utf-8")


def _write_objects(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([{}], dtype=object))


def _write_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(1))


def _write_nothing(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_write_text, r"is not a \.npy file of numbers"),
        (_write_objects, r"is not a \.npy file of numbers"),
        (_write_nothing, r"is not a \.npy file of numbers"),
        (_write_archive, "holds several arrays"),
    ],
)
def test_files_that_hold_no_images(
    folder: Path, write: Callable[[Path], None], message: str
) -> None:
    write(folder / "nearest_real.npy")
    with pytest.raises(ValueError, match=rf"nearest_real\.npy {message}"):
        read_run(folder)


def _without_networks(entry: dict[str, Any]) -> None:
    entry["evaluation"]["networks"] = []


def _another_format(entry: dict[str, Any]) -> None:
    entry["evaluation"]["format"] = "else"


def _another_version(entry: dict[str, Any]) -> None:
    entry["evaluation"]["format_version"] = 99


def _accuracy_in_percent(entry: dict[str, Any]) -> None:
    entry["evaluation"]["networks"][0]["accuracies"] = [91.2]


def _accuracy_as_text(entry: dict[str, Any]) -> None:
    entry["evaluation"]["networks"][0]["accuracies"] = ["0.9"]


def _unknown_field(entry: dict[str, Any]) -> None:
    entry["evaluation"]["networks"][0]["speed"] = 1


def _without_protocol(entry: dict[str, Any]) -> None:
    del entry["evaluation"]["conditions"]["protocol"]


def _without_conditions(entry: dict[str, Any]) -> None:
    del entry["evaluation"]["conditions"]


@pytest.mark.parametrize(
    "spoil",
    [
        _without_networks,
        _another_format,
        _another_version,
        _accuracy_in_percent,
        _accuracy_as_text,
        _unknown_field,
        _without_protocol,
        _without_conditions,
    ],
)
def test_foreign_evaluations(folder: Path, spoil: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "accuracies" / "3-random.json"
    entry = json.loads(path.read_text(encoding="utf-8"))
    spoil(entry)
    write_json(path, entry)
    message = rf"{path.name}: 'evaluation' must be what Evaluation\.as_dict\(\) returns"
    with pytest.raises(ValueError, match=message):
        read_run(folder)


@pytest.mark.parametrize("name", ["label", "evaluation"])
def test_evaluation_needs_its_label(folder: Path, name: str) -> None:
    path = folder / "accuracies" / "3-random.json"
    entry = json.loads(path.read_text(encoding="utf-8"))
    del entry[name]
    write_json(path, entry)
    with pytest.raises(ValueError, match=rf"3-random\.json has no {name}; it must be a"):
        read_run(folder)


def test_evaluation_of_a_changed_set_is_not_of_this_set(folder: Path) -> None:
    other = make_digits_set(3)
    write_evaluation(folder, "1-density", "other", make_evaluation((0.5,), other))
    assert [line.of_this_set for line in read_run(folder).evaluations[:2]] == [False, True]


def _another_measures_format(content: dict[str, Any]) -> None:
    content["format"] = "else"


def _later_measures_version(content: dict[str, Any]) -> None:
    content["format_version"] = 99


def _without_groups(content: dict[str, Any]) -> None:
    content["groups"] = []


def _groups_as_mapping(content: dict[str, Any]) -> None:
    content["groups"] = {"0": {}}


def _without_distortion(content: dict[str, Any]) -> None:
    del content["groups"][3]["distortion"]


def _unknown_distance(content: dict[str, Any]) -> None:
    content["groups"][3]["w2_lower"] = None


def _negative_distance(content: dict[str, Any]) -> None:
    content["groups"][3]["w2_lower"] = -1.0


def _huge_count(content: dict[str, Any]) -> None:
    content["groups"][3]["n_points"] = 1 << 70


@pytest.mark.parametrize(
    "spoil",
    [
        _another_measures_format,
        _later_measures_version,
        _without_groups,
        _groups_as_mapping,
        _without_distortion,
        _unknown_distance,
        _negative_distance,
        _huge_count,
    ],
)
def test_foreign_measures(
    folder: Path, digits: DistilledSet, spoil: Callable[[dict[str, Any]], None]
) -> None:
    content = make_measures(digits).as_dict()
    spoil(content)
    write_json(folder / "measures.json", content)
    message = r"measures\.json must hold what QuantizationMeasures\.as_dict\(\) returns"
    with pytest.raises(ValueError, match=message):
        read_run(folder)


def test_measures_of_other_classes(folder: Path, digits: DistilledSet) -> None:
    content = make_measures(digits).as_dict()
    content["groups"][9]["group"] = 10
    write_json(folder / "measures.json", content)
    with pytest.raises(ValueError, match=r"measures\.json has other groups .* must be 0 to 9"):
        read_run(folder)


@pytest.mark.parametrize("cut", [0, 30, -20])
def test_broken_pictures(folder: Path, cut: int) -> None:
    path = folder / "prior" / "curves.png"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"curves\.png is not a complete PNG image"):
        read_run(folder)


def test_pictures_of_another_format(folder: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4, 4)).save(folder / "prior" / "curves.png", "JPEG")
    with pytest.raises(ValueError, match=r"curves\.png is not a complete PNG image"):
        read_run(folder)
