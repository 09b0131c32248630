# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import pytest

for _package in ("typer", "rich", "jinja2", "safetensors", "sklearn", "PIL", "torch"):
    pytest.importorskip(_package)

from ddkern.report import read_run, render_page  # noqa: E402
from helpers.runs import make_digits_set, write_run  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", make_digits_set(2))


def test_page_is_written_into_the_folder(run, folder: Path) -> None:
    done = run("report", folder)
    assert (done.exit_code, done.stdout) == (0, f"{folder / 'report.html'}\n")
    expected = render_page(read_run(folder))
    assert (folder / "report.html").read_text(encoding="utf-8") == expected


def test_page_of_what_distill_wrote(run, tmp_path: Path) -> None:
    options = ("--method", "random", "--dataset", "digits", "--ipc", 1, "--out", tmp_path / "made")
    assert run("distill", *options, "--quiet").exit_code == 0
    assert run("report", tmp_path / "made").exit_code == 0
    text = (tmp_path / "made" / "report.html").read_text(encoding="utf-8")
    assert "<h1>random on digits, 1 image per class</h1>" in text


def test_another_file_and_fewer_classes(run, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "one.html"
    done = run("report", folder, "--out", page, "--max-classes", 2)
    assert (done.exit_code, done.stdout) == (0, f"{page}\n")
    assert page.read_text(encoding="utf-8") == render_page(read_run(folder), max_classes=2)
    assert not (folder / "report.html").exists()


def test_existing_page_is_replaced_on_request_only(run, fails, folder: Path) -> None:
    page = folder / "report.html"
    page.write_text("mine", encoding="utf-8")
    assert fails("report", folder) == f"{page} exists already; --force replaces it"
    assert page.read_text(encoding="utf-8") == "mine"
    assert run("report", folder, "--force").exit_code == 0
    assert page.read_text(encoding="utf-8") != "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "page.htm"), "--out='page.htm'; it must end in .html"),
        (("--max-classes", 0), "--max-classes=0; it must be an integer of at least 1"),
    ],
)
def test_wrong_options(fails, folder: Path, options: tuple[object, ...], message: str) -> None:
    assert fails("report", folder, *options) == message


def test_wrong_folders(fails, folder: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert fails("report", gone).startswith(f"OUT: {gone} does not exist; it must be a folder")
    assert not gone.exists()
    (folder / "run.json").write_text("{}", encoding="utf-8")
    assert fails("report", folder).startswith(f"OUT: {folder / 'run.json'} has format=None")
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("package", ["jinja2", "PIL.Image"])
def test_missing_package_is_told(
    fails, folder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    name = package.split(".", maxsplit=1)[0]
    assert fails("report", folder) == (
        f"the page of a run needs the package {name} (pip install 'ddkern[report]')"
    )
