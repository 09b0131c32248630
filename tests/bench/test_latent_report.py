# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from bench.evaluation.latent_methods import LINE
from bench.evaluation.latent_report import sections

PRIOR = {
    "recipe": {"autoencoder": {"steps": 5}, "diffusion": {"steps": 7}},
    "figures": {"reconstruction_rmse": 0.05, "real_accuracy": 0.99, "sample_accuracy": 0.9},
    "seconds": {"autoencoder": 60.0, "diffusion": 120.0},
}


def document(method: str, accuracies: list[float], **changes: Any) -> dict[str, Any]:
    line = {
        "name": f"{method}-10@small",
        "method": method,
        "ipc": 10,
        "weights": "uniform",
        "protocol": "small",
        "decoding": None,
        "sets": [{"accuracy": a, "protocol": "small@1"} for a in accuracies],
    }
    return {
        "suite": "latent_methods",
        "command": f"c --sets {len(accuracies)} --lines {method}-10@small",
        "data": {"name": "digits"},
        "prior": PRIOR,
        "lines": [line | changes],
    }


def cells(page: str, start: str) -> list[str]:
    (row,) = (text for text in page.splitlines() if text.startswith(start))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_nothing_of_what_is_not_there() -> None:
    assert sections([]) == []


def test_methods_stand_beside_random_images() -> None:
    documents = [
        document("random", [0.80, 0.82]),
        document("ddoq", [0.90, 0.94], decoding={"strength": 0.2}, weights="density"),
        document("k-means", [0.5], teacher_accuracy=0.783),
    ]
    page = "\n\n".join(sections(documents))
    assert page.count("### digits") == 1
    assert "3 minutes" in page
    assert "The teacher, a ConvNet-D3, names 78.3 %" in page
    found = cells(page, "| small@1 | ddoq ")
    assert found[2:8] == ["0.2", "density", "10", "92.0 ± 2.0", "2", "+11.0 ± 2.2"]
    assert found[8] == "`c --sets 2 --lines ddoq-10@small`"
    assert cells(page, "| small@1 | k-means ")[7] == "", "one set has no error"
    assert page.index("ddoq-10") < page.index("k-means-10") < page.index("random-10")


def test_unfinished_lines_are_refused() -> None:
    unfinished = document("ddoq", [0.9]) | {"command": "c --sets 5"}
    with pytest.raises(ValueError, match="ddoq-10@small has 1 sets; its command asks for more"):
        sections([unfinished])


def test_costs_are_shares_of_the_stages() -> None:
    stages = [
        {"name": "encode", "seconds": 40.0, "detail": {"seconds_in_codec": 39.0}},
        {"name": "quantize", "seconds": 0.5, "detail": {}},
        {"name": "decode", "seconds": 9.5, "detail": {}},
    ]
    line = {"images": 9, "ipc": 10, "stages": stages, "bytes_of_run": 3e8, "bytes_of_models": 1e8}
    page = "\n\n".join(sections([{"suite": "latent_cost", "command": "c", "lines": [line]}]))
    found = cells(page, "| 9 ")
    assert found[1:8] == ["10", "40.00", "0.50", "9.50", "2.5 %", "1.00 %", "200 MB"]


def test_lines_of_several_priors_are_not_one_table() -> None:
    other = document("ddoq", [0.9]) | {"prior": PRIOR | {"seconds": {"autoencoder": 1.0}}}
    with pytest.raises(ValueError, match="lines of digits come from several priors"):
        sections([document("random", [0.8]), other])


def test_gains_and_all_training_images() -> None:
    summary = {"w2_upper": 3.0, "w2_uniform_lower": 4.0, "gain_lower": 0.25, "effective_atoms": 9}
    codebooks = {
        "suite": "codebooks",
        "command": "c",
        "threads": 1,
        "lines": [
            {
                "space": "pixels",
                "features": 3072,
                "k": 10,
                "seconds_quantizing": 1.5,
                "measures": {"summary": summary},
            }
        ],
    }
    full = {
        "suite": "full_data",
        "command": "d",
        "data": {"images": 50_000},
        "schedule": {"epochs": 10, "batch_size": 128},
        "lines": [{"accuracy": 0.8, "precision": "bfloat16"}],
    }
    page = "\n\n".join(sections([codebooks, full]))
    assert cells(page, "| pixels ")[1:] == ["3072", "10", "3.000", "4.000", "25.0 %", "9.0", "1.5"]
    assert cells(page, "| 50000 ")[1:6] == ["10", "128", "bfloat16", "80.0", "1"]


def test_names_of_lines() -> None:
    found = LINE.match("ddoq:0.2-10-density@E1-dsa@1")
    assert found is not None
    assert found.groupdict() == {
        "method": "ddoq",
        "strength": "0.2",
        "ipc": "10",
        "weights": "density",
        "protocol": "E1-dsa@1",
    }
    found = LINE.match("k-means-1@small")
    assert found is not None
    assert (found["method"], found["ipc"], found["weights"]) == ("k-means", "1", None)
    assert LINE.match("ddoq@small") is None
