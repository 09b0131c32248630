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


def costs(device: str) -> dict[str, Any]:
    return {
        "command": "c",
        "device": device,
        "machine": {"cpu": "a processor"},
        "operations": OPERATIONS,
        "reading": {"bytes": 110_000, "seconds": 0.004, "cpus": 2},
        "lines": [
            {
                "dtype": "float16",
                "seconds_encode": 0.001,
                "seconds_step": 0.002,
                "seconds_decode": 0.01,
            }
        ],
    }


def row(page: str, start: str) -> list[str]:
    (found,) = (line for line in page.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_hours_are_those_of_the_parts() -> None:
    page = render([costs("a card")], {"a processor": 0.1})
    one = 0.01 + 35 * 0.002
    seconds = [(IMAGES * 0.001 + 10_000 * one) / gpus + 100 for gpus in (1, 8)]
    expected = ", ".join(f"{value / 3600:.1f} hours" for value in seconds)
    assert row(page, "a card")[1:7] == ["float16", "1.0", "2.0", "10.0", "1 and 8", expected]
    assert "No GPU has been measured" not in page


def test_a_processor_alone_says_that_no_gpu_was_measured() -> None:
    page = render([costs("a processor")], {"machine": 0.1})
    assert "No GPU has been measured" in page
    assert row(page, "machine")[1:] == ["100.00", "100.0"]
    (sizes, work) = (line for line in page.splitlines() if line.startswith("| M |"))
    assert "21 GB" in sizes
    assert "2.0 GB, 0.2 GB" in sizes
    assert "14.6" in work, "35 steps and a decoding"
