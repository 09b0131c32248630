# SPDX-License-Identifier: Apache-2.0
"""The page of accuracies follows from the result files and the protocols."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from bench.evaluation import anchors, report, speed  # noqa: E402

from bench import record  # noqa: E402


def accuracy(name: str, values: list[float], precision: str = "float32", data: str = "cifar10"):
    anchor = anchors.parse(name)
    sets = [
        {"seed": seed, "accuracy": value, "protocol": "E1-dc@1", "precision": precision}
        for seed, value in enumerate(values)
    ]
    line = {
        "name": name,
        "method": anchor.method,
        "ipc": anchor.ipc,
        "protocol": anchor.protocol,
        "weights": anchor.weights,
        "features": None if anchor.method == "random" else "pixels",
        "sets": sets,
    }
    command = f"python -m bench.evaluation.anchors --lines {name}"
    return {"command": command, "data": {"name": data}, "lines": [line]}


def test_the_page_is_up_to_date() -> None:
    assert report.main(["--check"]) == 0


def test_accuracies_stand_beside_published_ones() -> None:
    page = report.render([accuracy("random-10@E1-dc", [0.25, 0.27, 0.29])], [])
    row = next(line for line in page.splitlines() if "| random |" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["E1-dc@1", "random", "float32", "10", "27.0 ± 1.6"]
    assert cells[5:8] == ["3", "26.0", "+1.0"]


def test_precisions_are_compared_set_by_set() -> None:
    pair = [
        accuracy("random-1@E1-dc", [0.10, 0.20, 0.30]),
        accuracy("random-1@E1-dc", [0.11, 0.21, 0.34, 0.9], "bfloat16"),
    ]
    row = next(
        line for line in report.render(pair, []).splitlines() if "`random-1@E1-dc` | 3" in line
    )
    assert row.split("|")[3:5] == [" +2.00 ", " 1.00 "]


def test_digits_have_a_margin_over_random() -> None:
    pair = [
        accuracy("random-10@E1-dc", [0.90, 0.92], data="digits"),
        accuracy("k-means-10-sqrt@E1-dc", [0.96, 0.98], data="digits"),
    ]
    rows = [line for line in report.render(pair, []).splitlines() if line.startswith("| E1-dc@1 ")]
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells[1:8] == ["k-means", "sqrt", "10", "97.00 ± 1.00", "2", "+6.00", "1.41"]


def test_times_and_ratios() -> None:
    document = {
        "command": "c",
        "suite": "evaluation",
        "threads": 2,
        "machine": {"cpu": "A CPU"},
        "versions": {"torch": "2"},
        "lines": [
            {
                "name": "random-10@E1-dsa",
                "seconds_of_a_run": {"reference": 300.0, "float32": 150.0, "bfloat16": 100.0},
                "accuracies": {"reference": [0.3, 0.4], "float32": [0.5], "bfloat16": []},
            }
        ],
    }
    page = report.render([], [document])
    assert "| 300 | 1.00 | 35.0 ± 5.0 (2) |" in page
    assert "| 150 | 2.00 | 50.0 ± 0.0 (1) |" in page
    assert "| 100 | 3.00 |  |" in page


def test_names_of_lines() -> None:
    anchor = anchors.parse("k-means-10-sqrt@E1-dsa")
    assert (anchor.method, anchor.ipc, anchor.weights) == ("k-means", 10, "sqrt")
    assert anchor.name == "k-means-10-sqrt@E1-dsa"
    assert anchors.parse("random-1@E1-dc").weights == "uniform"


def test_every_operation_of_the_baseline_changes_images_and_keeps_their_shape() -> None:
    torch.manual_seed(0)
    images = torch.randn(6, 3, 32, 32)
    changed = 0
    for _ in range(60):
        out = speed.reference_augment(images)
        assert out.shape == images.shape
        assert torch.isfinite(out).all()
        changed += bool((out != images).any())
    assert changed == 60


def test_results_of_the_repository_are_complete() -> None:
    for document in report.read(record.RESULTS / "accuracy"):
        for one in document["lines"][0]["sets"]:
            assert {"seed", "network_seed", "accuracy", "set_hash", "environment"} <= one.keys()
            assert "deterministic_algorithms" in one["environment"]
