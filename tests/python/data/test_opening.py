# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddkern import UnsupportedError
from ddkern.data import open_dataset, opening
from helpers.datasets import NAMES, make_images, png, write_idx, write_parquet, write_tree

IMAGES, LABELS = make_images(shape=(1, 6, 5))


def _write(kind: str, folder: Path) -> Path:
    """Write the same data set in one of the formats; return what opens it."""
    if kind == "folder":
        write_tree(folder, IMAGES, LABELS)
        return folder
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        write_parquet(folder / "train.parquet", [png(image) for image in IMAGES], LABELS)
    elif kind == "idx":
        write_idx(folder, "train", IMAGES[:, 0], LABELS, compress=True)
    elif kind == "npy":
        np.save(folder / "images.npy", IMAGES)
        np.save(folder / "labels.npy", LABELS)
    else:
        np.savez(folder / "set.npz", images=IMAGES, labels=LABELS, class_names=NAMES)
        return folder / "set.npz"
    return folder


@pytest.mark.parametrize("kind", ["parquet", "idx", "npy", "npz", "folder"])
@pytest.mark.parametrize("named", [False, True])
def test_every_format_is_recognised_and_holds_the_same(
    kind: str, named: bool, tmp_path: Path
) -> None:
    pytest.importorskip("PIL")
    path = _write(kind, tmp_path)
    data = open_dataset(f"{kind}:{path}" if named else path)
    order = np.argsort(LABELS, kind="stable") if kind == "folder" else np.arange(12)
    np.testing.assert_array_equal(data.labels, LABELS[order])
    np.testing.assert_array_equal(data.images(), IMAGES[order])


def test_equal_contents_have_equal_fingerprints_in_different_formats(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    for kind in ("parquet", "npz"):
        (tmp_path / kind).mkdir()
    a, b = (open_dataset(_write(kind, tmp_path / kind)) for kind in ("parquet", "npz"))
    assert a.fingerprint() == b.fingerprint()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar10", "'cifar10' does not exist; a data set is 'digits', or the path"),
        ("parquet:absent", "'absent' does not exist"),
        ("empty", r"holds no data set; looked for \*\.parquet in it and in its folders, IDX"),
        ("notes.txt", r"notes\.txt is not a data set: a file must be"),
    ],
)
def test_nothing_there(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        open_dataset(spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "size=8 is for parquet and folder data sets, not npz"),
        ({"channels": 3}, "channels=3 is for parquet and folder data sets, not npz"),
        ({"label_column": "y"}, "label_column='y' is for parquet data sets, not npz"),
    ],
)
def test_options_of_other_formats(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset(_write("npz", tmp_path), **options)


def test_a_spec_is_a_string_or_a_path() -> None:
    with pytest.raises(TypeError, match="spec is a int"):
        open_dataset(3)


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, IMAGES, LABELS)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(UnsupportedError, match=r"decoding images needs the package PIL .*\[data\]"):
        open_dataset(tmp_path)


def test_importing_the_package_loads_numpy_alone() -> None:
    heavy = ["torch", "PIL", "pyarrow", "safetensors", "sklearn", "pandas", "datasets"]
    program = (
        "import sys, ddkern.data as d; [getattr(d, name) for name in d.__all__];"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_docstring_examples() -> None:
    pytest.importorskip("sklearn")
    failed, attempted = doctest.testmod(opening)
    assert (failed, attempted > 0) == (0, True)
