# SPDX-License-Identifier: Apache-2.0
"""The page that plans ImageNet-1K follows from counted operations and measured seconds."""

from __future__ import annotations

from typing import Any

import pytest
from bench.evaluation.imagenet_report import IMAGES, main, render

OPERATIONS = {
    "M": {
        "side": 256,
        "latent_values": 4096,
        "encode": 2e11,
        "step": 4e11,
        "decode": 6e11,
        "parameters": 5e8,
    }
}


def costs(device: str, reading: float = 0.004) -> dict[str, Any]:
    return {
        "command": "c",
        "device": device,
        "threads": 3,
        "machine": {"cpu": "a processor"},
        "operations": OPERATIONS,
        "reading": {"bytes": 110_000, "seconds": reading, "cpus": 2},
        "quantizing": [
            {"k": k, "iterations": 9.0, "seconds_quantize": k / 1e3, "seconds_measure": 0.2}
            for k in (10, 50)
        ],
        "lines": [
            {
                "dtype": "float16",
                "seconds_encode": 0.001,
                "seconds_step": 0.002,
                "seconds_decode": 0.01,
                "bytes_on_device": 4e9 if device == "a card" else None,
            }
        ],
    }


def row(page: str, heading: str, start: str) -> list[str]:
    part = page.split(f"## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    (found, *_) = (line for line in part.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("reading", [0.0001, 0.004])
def test_hours_are_those_of_the_parts(reading: float) -> None:
    page = render([costs("a card", reading)])
    one = 0.01 + 35 * 0.002
    once = IMAGES * reading
    expected = [
        once + max(IMAGES * 0.001 / n, once) + 1000 * (0.01 + 0.2) + 10_000 * one / n
        for n in (1, 8)
    ]
    found = row(page, "Time", "a card")
    assert found[1:7] == ["float16", "1.0", "2.0", "10.0", "4.0 GB", "1 and 8"]
    assert found[7] == ", ".join(f"{seconds / 3600:.1f} hours" for seconds in expected)
    assert "No GPU has been measured" not in page


def test_a_processor_alone_says_that_no_gpu_was_measured() -> None:
    page = render([costs("a processor")])
    assert "No GPU has been measured" in page
    assert row(page, "Time", "a processor")[5:7] == ["", "1"]
    assert row(page, "Reading", "a processor")[1:] == ["2", "110", "4.0", "1.4"]
    assert row(page, "Quantization", "a processor")[1:] == ["3", "10", "9", "10", "200", "3.5"]
    sizes = row(page, "Disk and memory", "M")
    assert sizes[1:3] == ["21 GB", "5.9 GB, 0.2 GB"]
    assert "1.0 GB for M in float16" in page
    assert row(page, "Work", "M")[1:4] == ["0.20", "14.6", "0.26"]


def test_no_results_is_an_error_of_a_line() -> None:
    with pytest.raises(SystemExit, match="there are no results in bench/results/imagenet"):
        render([])
