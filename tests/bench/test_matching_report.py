# SPDX-License-Identifier: Apache-2.0
"""The page on trajectory matching follows from the result files."""

from __future__ import annotations

from typing import Any

import pytest
from bench.matching.report import main, render

HEAD: dict[str, Any] = {
    "machine": {"cpu": "a processor"},
    "threads": 2,
    "versions": {"torch": "2.0"},
    "command": "c",
    "absent": {},
}


def cells(page: str, start: str) -> list[str]:
    (row,) = (line for line in page.splitlines() if line.startswith(start))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_distances() -> None:
    line = {
        "title": "11 M",
        "size": 1000,
        "seconds": {"ddkern": [1e-3, 2e-3, 3e-3], "torch": [5e-3, 6e-3, 9e-3]},
        "bytes_per_second": 24e6,
    }
    page = render({"matching_distance": HEAD | {"lines": [line], "absent": {"x": "no compiler"}}})
    assert cells(page, "| 11 M ") == ["11 M", "2.000", "6.000 (3.0x)", "50 %"]
    assert "Not measured: x: no compiler." in page
    assert "Gradients" not in page


def test_gradients() -> None:
    results = {
        "exact": {"bytes": 2e8, "seconds": 3.0, "difference": [0.0, 0.0]},
        "stored graph": {"bytes": 4e9, "seconds": 1.5, "difference": [1e-6, 0.0]},
    }
    line = {"steps": 30, "batch": 100, "results": results | {"tesla": {"killed": True}}}
    page = render({"matching_unroll": HEAD | {"lines": [line]}})
    found = cells(page, "| 30 | 100 | stored graph ")
    assert found[3:] == ["4000", "20.0x", "1.5", "0.50x", "1.0e-06"]
    assert cells(page, "| 30 | 100 | tesla ")[3] == "more than there is"


def test_biases() -> None:
    line = {
        "ipc": 10,
        "steps": 30,
        "lr": 0.01,
        "distance": 0.9,
        "error": 0.25,
        "cosine": 0.97,
        "lr_gradient": [1.0, -2.0],
    }
    page = render({"matching_tesla": HEAD | {"lines": [line]}})
    assert cells(page, "| 10 ")[1:] == ["30", "0.01", "0.9000", "0.250", "0.970", "1 and -2"]


def test_students() -> None:
    line = {
        "students": 4,
        "images": 10,
        "width": 32,
        "seconds": {"one by one": 2.0, "at once": 3.0},
        "difference": 1e-3,
    }
    page = render({"matching_students": HEAD | {"steps": 3, "lines": [line]}})
    assert cells(page, "| 4 ")[1:] == ["10", "32", "2.0", "3.0", "1.50x", "1.0e-03"]
    assert "`ddkern.distill.MTT`), 3\nsteps on all of the images" in page


def test_compiled_steps() -> None:
    line = {
        "images": 10,
        "compilation": 60.0,
        "seconds": {"plain": [0.1, 0.35], "compiled": [0.1, 0.2]},
        "difference": 1e-6,
    }
    page = render({"matching_compiled": HEAD | {"lines": [line]}})
    found = cells(page, "| 10 ")
    assert found == ["10", "100", "350", "100", "200", "1.50x", "60", "400", "1.0e-06"]
    line["seconds"] = {"plain": [0.1, 0.2], "compiled": [0.1, 0.3]}
    assert cells(render({"matching_compiled": HEAD | {"lines": [line]}}), "| 10 ")[7] == "never"
