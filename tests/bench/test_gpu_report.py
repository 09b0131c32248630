# SPDX-License-Identifier: Apache-2.0
"""The GPU sections follow from the result files; contestants are checked before they are timed."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from bench.gpu import check, problem, report, session  # noqa: E402
from bench.gpu.peers import contestants  # noqa: E402
from bench.gpu.peers.torch_lines import TorchLines  # noqa: E402
from bench.kmeans import gpu_peers  # noqa: E402

from bench import report as page_report  # noqa: E402

# Recorded with --smoke --device cpu: tiny shapes, so the times mean nothing.
RECORDED = Path(__file__).parent / "gpu_smoke"
CPU = torch.device("cpu")


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    return report.read(RECORDED, smoke=True)


def lloyd_row(documents: list[dict[str, Any]]) -> str:
    text = "\n".join(report.render(documents))
    return next(row for row in text.splitlines() if row.startswith("| 6 x 30-70"))


def test_no_documents_say_nothing(tmp_path: Path) -> None:
    assert report.render([]) == []
    assert report.read(tmp_path / "none") == []
    assert "GPU" not in page_report.render_page([], [])


def test_tiny_shapes_never_reach_the_page(tmp_path: Path) -> None:
    shutil.copytree(RECORDED, tmp_path / "gpu")
    assert report.read(tmp_path / "gpu") == []


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="schema"):
        report.read(tmp_path)


def test_page_has_every_suite_precision_and_floor(documents: list[dict[str, Any]]) -> None:
    page = page_report.render_page([], documents)
    for text in ("Lloyd iterations alone", "End to end", "How the time grows", "bfloat16 operands"):
        assert text in page
    assert "data once | each pass | products" in page
    assert "images/bench_gpu_scaling_k.svg" in page
    assert "flash-kmeans bf16: not installed" in page
    tables = re.findall(r"(?:^\|.*\n?)+", page, re.MULTILINE)
    for table in tables:
        assert len({row.count("|") for row in table.strip().splitlines()}) == 1, table


def test_ratio_is_peer_over_ddkern(documents: list[dict[str, Any]]) -> None:
    line = next(d for d in documents if d["suite"] == "lloyd")["lines"][0]
    line["results"]["ddkern"]["seconds"] = [0.001, 0.002, 0.009]
    line["results"]["torch_fp32"]["seconds"] = [0.004, 0.008, 0.008]
    line["results"]["torch_bf16"]["seconds"] = [0.005, 0.003, 0.003]
    row = lloyd_row(documents)
    assert "| 2 | 8 (4.0x) | 3 (1.5x) | **4.0x** (torch fp32) | **1.5x** (torch bf16) |" in row


def test_differing_results_have_no_ratio(documents: list[dict[str, Any]]) -> None:
    line = next(d for d in documents if d["suite"] == "lloyd")["lines"][0]
    line["results"]["torch_fp32"]["agrees"] = False
    row = lloyd_row(documents)
    assert "(results differ)" in row
    assert "(torch fp32)" not in row


def test_failures_are_shown_without_a_time(documents: list[dict[str, Any]]) -> None:
    line = next(d for d in documents if d["suite"] == "lloyd")["lines"][0]
    line["results"]["torch_bf16"] |= {"status": "failed", "message": "OutOfMemoryError: a|b"}
    assert "failed: OutOfMemoryError: a/b" in lloyd_row(documents)


def test_newest_measurement_of_a_line_counts(documents: list[dict[str, Any]]) -> None:
    newer = copy.deepcopy(next(d for d in documents if d["suite"] == "lloyd"))
    newer["lines"][0]["results"]["ddkern"]["seconds"] = [0.0123]
    assert "| 12.3 |" in lloyd_row([*documents, newer])


def test_plots_are_the_same_bytes(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a", "b"):
        report.draw(documents, tmp_path / name)
    images = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(images) == 4
    for image in images:
        assert (tmp_path / "a" / image).read_bytes() == (tmp_path / "b" / image).read_bytes()


def test_run_writes_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lloyd.json"
    arguments = ["--suite", "lloyd", "--smoke", "--device", "cpu", "--out", str(out)]
    assert gpu_peers.main([*arguments, "--shapes", "latents-k5", "--rounds", "2"]) == 0
    (line,) = json.loads(out.read_text())["lines"]
    own, peer = line["results"]["ddkern"], line["results"]["torch_fp32"]
    assert own["not_nearest"] == 0
    assert own["rows_checked"] > 0
    assert peer["agrees"]
    assert abs(peer["relative_difference"]) <= session.SAME_RESULT
    assert len(peer["seconds"]) == len(own["seconds"]) == line["rounds"] == 2
    assert "lloyd: 6 x 30-70 x 32, k=5" in capsys.readouterr().out


def test_rows_in_cpu_memory(tmp_path: Path) -> None:
    out = tmp_path / "end_to_end.json"
    arguments = ["--suite", "end_to_end", "--smoke", "--device", "cpu", "--out", str(out)]
    arguments += ["--shapes", "latents-k5", "--peers", "ddkern_host", "--rounds", "1"]
    assert gpu_peers.main(arguments) == 0
    (line,) = json.loads(out.read_text())["lines"]
    own, there = line["results"]["ddkern"], line["results"]["ddkern_host"]
    assert there["seconds"]
    assert own["notes"]["distortion"] == there["notes"]["distortion"]


def test_budget_leaves_lines_out(tmp_path: Path) -> None:
    out = tmp_path / "lloyd.json"
    arguments = ["--suite", "lloyd", "--smoke", "--device", "cpu", "--out", str(out)]
    assert gpu_peers.main([*arguments, "--budget", "-1"]) == 1
    assert {item["reason"] for item in json.loads(out.read_text())["skipped"]} == {"out of time"}


def test_a_failing_contestant_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(TorchLines, "fit_lloyd", broken)
    out = tmp_path / "lloyd.json"
    arguments = ["--suite", "lloyd", "--smoke", "--device", "cpu", "--out", str(out)]
    assert gpu_peers.main([*arguments, "--shapes", "equal-k3"]) == 0
    (line,) = json.loads(out.read_text())["lines"]
    assert line["results"]["torch_fp32"]["message"] == "RuntimeError: no such kernel"
    assert line["results"]["ddkern"]["seconds"]


@pytest.mark.parametrize("update", ["one_hot", "index_add"])
@pytest.mark.parametrize("room", [2**33, 3000])
def test_torch_gives_the_same_in_every_form(update: str, room: int) -> None:
    made = problem.make_problem(problem.SMOKE["lloyd"][0], CPU)
    subject, peer = contestants(["torch_fp32"])
    assert isinstance(peer, TorchLines)
    inputs = peer.prepare(made)
    peer._update, peer._room = update, room
    fit, own = peer.fit_lloyd(inputs, made, 2), subject.fit_lloyd(made.x, made, 2)
    torch.testing.assert_close(fit.centroids, own.centroids, rtol=1e-4, atol=1e-4)
    assert torch.equal(made.flat(fit.labels), own.labels)


def test_wrong_labels_are_counted() -> None:
    made = problem.make_problem(problem.SMOKE["lloyd"][0], CPU)
    fit = contestants([])[0].fit_lloyd(made.x, made, 1)
    assert check.not_nearest(made, fit.centroids, fit.labels) == (0, len(made.x))
    fit.labels[[0, 100]] = (fit.labels[[0, 100]] + 1) % made.shape.k
    fit.labels[7] = -1
    assert check.not_nearest(made, fit.centroids, fit.labels)[0] == 3
    own = check.distortion(made, fit.centroids).mean().item()
    assert own == pytest.approx(fit.notes["distortion"], rel=1e-6)


def test_groups_are_ragged_and_fit_the_memory() -> None:
    shape = problem.SUITES["lloyd"][0]
    assert shape.fitted(10**12) == shape
    assert 0 < shape.fitted(2**33).groups < 200
    made = problem.make_problem(problem.SMOKE["lloyd"][0], CPU)
    assert made.sizes.min() >= made.shape.smallest
    assert not made.equal
    padded = made.padded(torch.float32)
    assert torch.equal(padded[made.mask], made.x)
    assert padded[~made.mask].abs().sum() == 0
