# SPDX-License-Identifier: Apache-2.0
"""What the benchmark pages say follows from the result files, and from nothing else."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bench.gpu import report as gpu_report

from bench import analysis, plots, quality, record, report, shapes

if TYPE_CHECKING:
    from pathlib import Path

LLOYD = shapes.Shape("one", "gauss", groups=2, n=30, d=4, k=3, iterations=5)
SEEDED = shapes.Shape("two", "gauss", groups=2, n=30, d=4, k=3, iterations=5, n_init=2)


def result(seconds: float, distortion: float = 1.0, n_iter: int = 5) -> dict[str, Any]:
    return {
        "seconds": [2 * seconds, seconds, seconds / 2],
        "distortion": [distortion] * 3,
        "group_distortion": [distortion] * 2,
        "n_iter": [[n_iter, n_iter]] * 3,
        "notes": {"form": "streaming", "rows_assigned": 1000, "rows_rechecked": 25},
    }


def document(
    suite: str,
    shape: shapes.Shape,
    results: dict[str, dict[str, Any]],
    *,
    isa: str = "avx512",
    date: str = "2026-01-01T00:00:00+00:00",
) -> dict[str, Any]:
    return {
        "schema": record.SCHEMA,
        "suite": suite,
        "date": date,
        "command": f"python -m bench.run --suite {suite}",
        "commit": "0123456789abcdef",
        "dirty": False,
        "threads": 2,
        "isa_forced": None,
        "peers_limited_to_avx2": False,
        "machine": {
            "cpu": "A CPU",
            "flags": ["avx2"],
            "cores": 2,
            "cache": {"L1": "32K"},
            "memory_gib": 8,
            "system": "Linux",
        },
        "probes": [
            {"source": "probes", "fma_gflops": 10.0, "bf16_gflops": None, "copy_gbps": 1.0},
            {"source": "probes", "fma_gflops": 20.0, "bf16_gflops": None, "copy_gbps": 2.0},
        ],
        "implementations": {"ddkern": {"versions": {"ddkern": "1"}, "facts": {"isa": isa}}},
        "absent": {"torch": "not installed"},
        "lines": [{"shape": shape.to_json(), "rounds": 3, "results": results}],
    }


def only_line(written: dict[str, Any]) -> analysis.Line:
    ((line,),) = (
        suite for suites in analysis.collect([written]).values() for suite in suites.values()
    )
    return line


def judged(suite: str, results: dict[str, dict[str, Any]]) -> analysis.Verdict:
    shape = SEEDED if suite == "end_to_end" else LLOYD
    return analysis.judge(only_line(document(suite, shape, results)))


def test_ratio_is_of_medians_and_to_the_fastest_peer() -> None:
    verdict = judged("lloyd", {"ddkern": result(1), "sklearn": result(6), "faiss": result(4)})
    assert (verdict.best, verdict.ratio, verdict.remark) == ("faiss", 4.0, "")


def test_lloyd_runs_that_end_elsewhere_have_no_ratio() -> None:
    within = {"ddkern": result(1), "sklearn": result(6), "faiss": result(4, 1 + 0.9e-5)}
    assert judged("lloyd", within).ratio == 4.0
    beyond = {"ddkern": result(1), "sklearn": result(6), "faiss": result(4, 1 + 1.1e-5)}
    verdict = judged("lloyd", beyond)
    assert verdict.ratio is None
    assert verdict.remark == "results differ: faiss"


def test_lloyd_runs_of_other_lengths_have_no_ratio() -> None:
    verdict = judged("lloyd", {"ddkern": result(1), "sklearn": result(6, n_iter=4)})
    assert verdict.ratio is None
    assert verdict.remark == "iterations differ: scikit-learn"


def test_end_to_end_needs_a_distortion_as_low_as_the_lowest() -> None:
    within = {"ddkern": result(1, 1.0009), "sklearn": result(6), "faiss": result(4, 1.1)}
    assert judged("end_to_end", within).ratio == 6.0
    above = {"ddkern": result(1, 1.0011), "sklearn": result(6), "faiss": result(4, 1.1)}
    verdict = judged("end_to_end", above)
    assert verdict.ratio is None
    assert verdict.remark == "results differ: ddkern's distortion is higher"


def test_a_faster_peer_with_a_higher_distortion_is_named_but_not_compared_with() -> None:
    verdict = judged(
        "end_to_end", {"ddkern": result(1), "sklearn": result(6), "faiss": result(4, 1.01)}
    )
    assert (verdict.best, verdict.ratio) == ("sklearn", 6.0)
    assert verdict.remark == "faiss takes 4000 ms at +1.00 % distortion"


def test_noise_does_not_remove_a_peer() -> None:
    noisy = result(4) | {"distortion": [1.05, 0.98, 1.0]}  # +1 % with a standard error of 2 %
    verdict = judged("end_to_end", {"ddkern": result(1), "sklearn": result(6), "faiss": noisy})
    assert (verdict.best, verdict.ratio) == ("faiss", 4.0)


@pytest.mark.parametrize("missing", ["ddkern", "sklearn"])
def test_nothing_is_compared_with_what_was_not_measured(missing: str) -> None:
    results: dict[str, Any] = {"ddkern": result(1), "sklearn": result(6)}
    results[missing] = {"error": "died"}
    assert judged("lloyd", results).ratio is None


def test_operations_are_those_of_full_recomputation() -> None:
    line = only_line(document("lloyd", LLOYD, {"ddkern": result(1)}))
    assert analysis.operations(line) == (2 * 30 * 4 * 3 * 5 * 2, 30 * 4 * 5 * 2)
    line = only_line(document("end_to_end", SEEDED, {"ddkern": result(1)}))
    # k=3 draws 1 + 2 * (2 + 1) candidates; two restarts of 5 iterations in each of 2 groups.
    flops = 2 * (2 * 30 * 4) * (2 * 7 + 2 * 5 * 3)
    assert analysis.operations(line) == (flops, 2 * (30 * 4) * (2 * 3 + 2 * 5))


def test_the_newer_measurement_of_a_line_counts_and_settings_stay_apart() -> None:
    old = document("lloyd", LLOYD, {"ddkern": result(1), "sklearn": result(9)}, date="2026-01-01")
    new = document("lloyd", LLOYD, {"ddkern": result(1), "sklearn": result(6)}, date="2026-01-02")
    weak = document("lloyd", LLOYD, {"ddkern": result(3), "sklearn": result(6)}, isa="avx2")
    tables = analysis.collect([old, new, weak])
    assert [setting.isa for setting in tables] == ["avx512", "avx2"]
    ratios = [analysis.judge(suites["lloyd"][0]).ratio for suites in tables.values()]
    assert ratios == [6.0, 2.0]


def test_page_shows_times_shares_and_absent_peers() -> None:
    text = report.render_page(
        [document("lloyd", LLOYD, {"ddkern": result(2e-6), "sklearn": result(1e-5)})]
    )
    assert "| 2 x 30 x 4, k=3 | 5 | 0.00200 | 0.0100 | scikit-learn | **5.0x** | 0e+00 |" in text
    # 7200 operations in 2 us of 20 GFLOP/s; 4800 bytes in 2 us of 2 GB/s.
    assert "| 2 x 30 x 4, k=3 | streaming | 4 | 18 % | 2 | 120 % | 2.50 % |" in text
    assert "torch (lloyd): not installed" in text


def test_readme_block_stands_between_its_markers() -> None:
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.insert(text, "new")
    assert once == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.insert(once, "new") == once
    with pytest.raises(ValueError, match="must hold"):
        report.insert("no markers", "new")


def test_written_pages_are_up_to_date_until_a_result_changes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = document("lloyd", LLOYD, {"ddkern": result(1), "sklearn": result(6)})
    record.write(written, tmp_path / "results" / "lloyd.json")
    (tmp_path / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n")
    arguments = ["--results", str(tmp_path / "results"), "--root", str(tmp_path)]
    assert report.main([*arguments, "--check"]) == 1
    assert report.main(arguments) == 0
    assert report.main([*arguments, "--check"]) == 0
    assert "**6.0x** (scikit-learn)" in (tmp_path / "README.md").read_text()
    images = {path.name for path in (tmp_path / "docs" / "images").iterdir()}
    assert images == set(plots.image_names([written]))
    written["lines"][0]["results"]["sklearn"]["seconds"] = [7.0]
    record.write(written, tmp_path / "results" / "lloyd.json")
    assert report.main([*arguments, "--check"]) == 1


def test_result_files_of_another_schema_are_refused(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps({"schema": 0, "date": ""}))
    with pytest.raises(ValueError, match=r"old\.json has schema 0"):
        record.read_all(tmp_path)


def test_committed_pages_say_what_the_committed_results_say() -> None:
    documents = record.read_all(record.RESULTS)
    page = (record.ROOT / "docs" / "benchmarks.md").read_text()
    gpu_documents = gpu_report.read(record.RESULTS / "gpu")
    assert page == report.render_page(documents, gpu_documents)
    readme = (record.ROOT / "README.md").read_text()
    assert readme == report.insert(readme, report.render_readme(documents))
    for image in re.findall(r"\]\((images/[^)]+)\)", page):
        assert (record.ROOT / "docs" / image).is_file(), image


def test_distortion_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((50, 7)).astype(np.float32) + np.float32(100)
    centroids = rows[:4] + np.float32(0.5)
    squared = (rows[:, None].astype(float) - centroids[None].astype(float)) ** 2
    expected = squared.sum(axis=2).min(axis=1).mean()
    assert quality.distortion(rows, centroids) == pytest.approx(expected, rel=1e-10)


def test_data_and_seeds_are_the_same_every_time_and_seeds_are_distinct_rows() -> None:
    x = shapes.make_data(LLOYD)
    assert x.shape == (60, 4)
    np.testing.assert_array_equal(x, shapes.make_data(LLOYD))
    problem = shapes.Problem.of(x, LLOYD)
    seeds = shapes.make_seeds(problem)
    np.testing.assert_array_equal(seeds, shapes.make_seeds(problem))
    for group in range(LLOYD.groups):
        own = problem.centroids(seeds, group)
        hits = [np.flatnonzero((problem.rows(group) == seed).all(axis=1)) for seed in own]
        assert len({int(hit[0]) for hit in hits}) == LLOYD.k


def test_a_peer_with_fewer_seeds_is_compared_over_those() -> None:
    """Seeds differ in difficulty: the mean over three says nothing about the mean over ten."""
    own, peer = result(1.0), result(4.0)
    own["seconds"], own["distortion"] = [1.0] * 4, [1.0, 1.0, 1.0, 5.0]
    peer["distortion"] = [1.01] * 3
    documents = [document("end_to_end", SEEDED, {"ddkern": own, "sklearn": peer})]
    (lines,) = analysis.collect(documents).values()
    line = lines["end_to_end"][0]
    assert line.excess("sklearn") == pytest.approx(0.01)
    assert not line.is_as_good("sklearn")
    text = report.render_page(documents)
    assert "(+1.00 %, 3 seeds)" in text


def test_slow_peers_stop() -> None:
    results = {"ddkern": result(0.1), "sklearn": result(1.0), "faiss": result(2.0)}
    results |= {"torch": result(2.1), "sklearnex": {"error": "gone"}}
    assert analysis.slow_peers(results) == {"torch"}
    results["faiss_own_seeds"] = result(0.2)
    assert analysis.slow_peers(results) == {"torch"}, "plain seeding sets no pace"
    assert analysis.slow_peers({"ddkern": result(0.1)}) == set()


def test_a_slow_peer_that_is_better_goes_on() -> None:
    results = {"ddkern": result(0.1), "sklearn": result(1.0), "torch": result(2.1)}
    assert analysis.slow_peers(results) == {"torch"}
    own = results["ddkern"]["distortion"]
    results["torch"]["distortion"] = [0.998 * d for d in own]
    assert analysis.slow_peers(results) == set(), "a few seeds do not tell whether that is chance"
    results["torch"]["distortion"] = [0.9995 * d for d in own]
    assert analysis.slow_peers(results) == {"torch"}
    results["ddkern"] = {"error": "gone"}
    assert analysis.slow_peers(results) == {"torch"}
