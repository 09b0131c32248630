# SPDX-License-Identifier: Apache-2.0
"""From ``bench/results/*.json`` to docs/benchmarks.md, the README's table and the plots.

``python -m bench.report`` writes them; ``--check`` only says whether the pages are up to date.
The pages depend on the result files and on nothing else. Of two measurements of the same line (same
suite, machine, instruction set and threads) the newer one counts. Measurements on a GPU lie in
``bench/results/gpu``; the page has a section on them where there are any.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench import record
from bench.analysis import (
    SAME_QUALITY,
    SAME_RESULT,
    SEEDS_FOR_ALL,
    SLOW_PEER,
    Line,
    Setting,
    Verdict,
    axis_lines,
    collect,
    judge,
    milliseconds,
    operations,
    plural,
    unique_runs,
)
from bench.baselines import ENTRIES, PEERS, SUBJECT
from bench.gpu import report as gpu_report
from bench.plots import AXIS_TITLES, RATIOS_IMAGE, draw, scaling_image
from bench.shapes import SCALING_SIZES

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
_PAGE = Path("docs/benchmarks.md")
_README = Path("README.md")
_IMAGES = Path("docs/images")


def render_page(
    documents: list[dict[str, Any]], gpu_documents: list[dict[str, Any]] | None = None
) -> str:
    """Return the text of docs/benchmarks.md."""
    tables = collect(documents)
    parts = [
        "# Benchmarks",
        "<!-- Written by `python -m bench.report` from bench/results/*.json: do not edit. -->",
        _METHOD,
    ]
    for number, (setting, suites) in enumerate(tables.items()):
        parts.append(f"## {setting.title}")
        parts.append(_machine(setting, suites))
        if "lloyd" in suites:
            parts += ["### Lloyd iterations alone", *_suite(suites["lloyd"])]
        if "end_to_end" in suites:
            parts += ["### End to end", *_suite(suites["end_to_end"])]
        if "scaling" in suites:
            parts += ["### How the time grows", *_scaling(suites["scaling"], images=number == 0)]
    parts += gpu_report.render(gpu_documents or [])
    parts += ["## Runs", *_runs(tables)] if tables else ["No measurements yet."]
    return "\n\n".join(parts) + "\n"


_METHOD = f"""\
Every line is one run in which all libraries take turns: a round runs each of them once, each in a
process of its own with the same thread limit, and the table shows medians over the rounds in
milliseconds, for all groups together. The libraries that take one problem at a time loop over the
groups. Everybody starts from the same C-contiguous float32 arrays; conversions, copies, centring
and packing are inside the time. Distortions are computed here, in float64, from the centroids
that came back.

* **Lloyd iterations alone**: the same initial centroids (random rows) and the same number of
  iterations, fewer than any group needs to converge. There is a ratio only where all distortions
  agree to {SAME_RESULT:g} and everybody executed that number of iterations. ddkern and
  scikit-learn return labels for the final centroids; faiss and torch are not asked for them.
* **End to end**: greedy k-means++, then Lloyd to a tolerance of 1e-4, at most 300 iterations; a
  round is a seed. faiss and torch have no greedy k-means++ and get scikit-learn's seeds, whose
  time is added to theirs; faiss is shown with its own plain k-means++ as well. faiss stops on the
  relative change of its objective, the only tolerance it has. Percentages are mean distortions
  over the seeds, relative to ddkern's. There is a ratio only where ddkern's mean distortion is
  at most {100 * SAME_QUALITY:g} % above the lowest; a peer whose own is higher by more than that
  and by more than two standard errors is not the one compared with, and is named if it was faster.
  A peer that takes more than {SLOW_PEER:g} times as long as the fastest one with greedy seeds after
  {SEEDS_FOR_ALL} seeds stops there, unless its distortion is lower than ddkern's by more than
  {100 * SAME_QUALITY:g} %; it is compared with ddkern's over the same seeds.
* **Ratio**: the fastest peer's time over ddkern's.
* **Shares**: operations are counted as if every iteration recomputed every distance (2 n D k; end
  to end also every candidate of the seeding), bytes as if it read the float32 data once, and
  both are divided by what probes of the machine reach. What is skipped, or done in Gram space, is
  counted all the same, so that shares above 100 % are possible: they say how far full recomputation
  at the roof would be.

Reproduce with `make bench`, or a part with `python -m bench.run --help`; `python -m bench.report`
rewrites this page."""


def _machine(setting: Setting, suites: dict[str, list[Line]]) -> str:
    runs = unique_runs([line for lines in suites.values() for line in lines])
    machine = runs[-1]["machine"]
    caches = ", ".join(f"{name} {size}" for name, size in machine["cache"].items())
    memory = f"{machine['memory_gib']} GiB memory, " if machine["memory_gib"] else ""
    roofs = [
        f"{title} {max(values):.0f} {unit}"
        for name, title, unit in (
            ("fma_gflops", "float32 FMA", "GFLOP/s"),
            ("bf16_gflops", "bfloat16 dot products", "GFLOP/s"),
            ("byte_gops", "dot products of bytes", "Gop/s"),
            ("copy_gbps", "copy (read + write)", "GB/s"),
        )
        if (values := [p[name] for run in runs for p in run["probes"] if p.get(name)])
    ]
    sources = sorted({probe["source"] for run in runs for probe in run["probes"]})
    lines = [
        (
            f"{setting.cpu}, {plural(machine['cores'], 'core')}, {caches}, {memory}"
            f"{machine['system']}."
        ),
        f"Instruction sets: {', '.join(machine['flags'])}.",
    ]
    if roofs:
        lines.append(f"Measured roofs ({'; '.join(sources)}): {', '.join(roofs)}.")
    lines.append(f"Versions: {_versions(runs[-1])}.")
    return "\n".join(lines)


def _versions(run: dict[str, Any]) -> str:
    merged: dict[str, str] = {}
    for implementation in run["implementations"].values():
        merged |= implementation["versions"]
    return ", ".join(f"{name} {version}" for name, version in merged.items())


def _suite(lines: list[Line]) -> list[str]:
    keys = [e.key for e in PEERS if any(e.key in line.peers() for line in lines)]
    end_to_end = lines[0].suite == "end_to_end"
    count = "seeds" if end_to_end else "iterations"
    check = "distortion over the lowest" if end_to_end else "distortions agree to"
    header = ["groups x n x D, k", count, "ddkern", *(ENTRIES[k].title for k in keys)]
    header += ["fastest peer", "ratio", check]
    verdicts = [judge(line) for line in lines]
    rows: list[list[str]] = []
    notes: list[str] = []
    for line, verdict in zip(lines, verdicts, strict=True):
        mark = ""
        if verdict.remark:
            notes.append(f"[{len(notes) + 1}] {line.shape.label}: {verdict.remark}.")
            mark = f" [{len(notes)}]"
        rounds = len(line.results.get(SUBJECT.key, {}).get("seconds", [])) or "-"
        rows.append(
            [
                line.shape.label,
                str(rounds if end_to_end else line.shape.iterations),
                milliseconds(line.seconds(SUBJECT.key)),
                *(_cell(line, key) for key in keys),
                ENTRIES[verdict.best].title if verdict.best else "-",
                (f"**{verdict.ratio:.1f}x**" if verdict.ratio else "-") + mark,
                _difference(verdict, end_to_end=end_to_end),
            ]
        )
    parts = [_table(header, rows)]
    if notes:
        parts.append("\n".join(f"* {note}" for note in notes))
    if any(line.seconds(SUBJECT.key) for line in lines):
        parts.append(_shares(lines))
    return parts


def _cell(line: Line, key: str) -> str:
    seconds = line.seconds(key)
    if seconds is None:
        return "failed" if "error" in line.results.get(key, {}) else "-"
    text = milliseconds(seconds)
    if line.suite == "end_to_end" and line.seconds(SUBJECT.key) is not None:
        seeds = len(line.results[key]["seconds"])
        fewer = f", {seeds} seeds" if seeds < len(line.results[SUBJECT.key]["seconds"]) else ""
        text += f" ({100 * line.excess(key):+.2f} %{fewer})"
    return text


def _difference(verdict: Verdict, *, end_to_end: bool) -> str:
    if verdict.difference is None:
        return "-"
    return f"{100 * verdict.difference:+.2f} %" if end_to_end else f"{verdict.difference:.0e}"


def _shares(lines: list[Line]) -> str:
    # Where the level multiplies narrow formats, their peaks are the roofs.
    narrow = [
        (name, title)
        for name, title in (("bf16_gflops", "of bf16 peak"), ("byte_gops", "of byte peak"))
        if any(line.roof(name) for line in lines)
    ]
    header = ["groups x n x D, k", "variant", "GFLOP/s", "of FMA peak"]
    header += [title for _, title in narrow]
    header += ["GB/s", "of copy bandwidth", "rows rechecked"]
    rows = []
    for line in lines:
        seconds = line.seconds(SUBJECT.key)
        if seconds is None:
            continue
        flops, values = operations(line)
        gflops, gbps = flops / seconds / 1e9, 4.0 * values / seconds / 1e9
        notes = line.results[SUBJECT.key]["notes"]
        row = [line.shape.label, str(notes.get("form", "-")), f"{gflops:.0f}"]
        row.append(_share(gflops, line.roof("fma_gflops")))
        row += [_share(gflops, line.roof(name)) for name, _ in narrow]
        row += [f"{gbps:.0f}", _share(gbps, line.roof("copy_gbps"))]
        assigned = notes.get("rows_assigned")
        row.append(f"{100 * notes['rows_rechecked'] / assigned:.2f} %" if assigned else "-")
        rows.append(row)
    return _table(header, rows)


def _share(value: float, roof: float | None) -> str:
    return f"{100 * value / roof:.0f} %" if roof else "-"


def _scaling(lines: list[Line], *, images: bool) -> list[str]:
    parts = [
        (
            "Fixed-length Lloyd runs around 4 groups of 2000 x 1024 with k=50, one size varied at a"
            " time."
        )
    ]
    for axis in SCALING_SIZES:
        chosen = axis_lines(lines, axis)
        if not chosen:
            continue
        if images:
            parts.append(f"![Time against {AXIS_TITLES[axis]}](images/{scaling_image(axis)})")
        rows = []
        for line in chosen:
            verdict = judge(line)
            best = verdict.best
            rows.append(
                [
                    line.shape.label,
                    milliseconds(line.seconds(SUBJECT.key)),
                    f"{milliseconds(line.seconds(best))} ({ENTRIES[best].title})" if best else "-",
                    f"{verdict.ratio:.1f}x" if verdict.ratio else verdict.remark or "-",
                ]
            )
        parts.append(_table(["groups x n x D, k", "ddkern", "fastest peer", "ratio"], rows))
    return parts


def _runs(tables: dict[Setting, dict[str, list[Line]]]) -> list[str]:
    lines = [line for suites in tables.values() for group in suites.values() for line in group]
    rows = []
    absent: dict[str, str] = {}
    for run in unique_runs(lines):
        commit = (run["commit"] or "unknown")[:12] + (" + changes" if run["dirty"] else "")
        forced = f"DDKERN_ISA={run['isa_forced']} " if run["isa_forced"] else ""
        command = f"`{forced if 'python' not in run['command'] else ''}{run['command']}`"
        rows.append([run["suite"], run["date"], commit, command])
        absent |= {
            f"{ENTRIES[key].title} ({run['suite']})": why for key, why in run["absent"].items()
        }
    parts = [_table(["suite", "date (UTC)", "commit", "command"], rows, align="---")]
    if absent:
        parts.append("Absent: " + "; ".join(f"{k}: {v}" for k, v in absent.items()) + ".")
    return parts


def render_readme(documents: list[dict[str, Any]]) -> str:
    """Return what stands between the README's markers: a picture and a table of ratios."""
    tables = collect(documents)
    setting = next(iter(tables), None)
    if setting is None:
        return "No measurements yet: `make bench`."
    suites = tables[setting]
    ratios: dict[str, dict[str, str]] = {}
    for suite in ("lloyd", "end_to_end"):
        for line in suites.get(suite, []):
            verdict = judge(line)
            text = "-"
            if verdict.ratio and verdict.best:
                text = f"**{verdict.ratio:.1f}x** ({ENTRIES[verdict.best].title})"
            ratios.setdefault(line.shape.label, {})[suite] = text
    rows = [
        [label, found.get("lloyd", "-"), found.get("end_to_end", "-")]
        for label, found in ratios.items()
    ]
    header = ["groups x n x D, k", "Lloyd iterations alone", "seeding and Lloyd, end to end"]
    names = [e.title for e in PEERS if e.key != "faiss_own_seeds"]
    return "\n\n".join(
        [
            f"![Speed of ddkern over the fastest peer]({_IMAGES}/{RATIOS_IMAGE})",
            _table(header, rows),
            (
                f"How many times faster than the fastest of {', '.join(names[:-1])} and {names[-1]}"
                f" (in brackets), at equal distortion: {setting.cpu}, {setting.title}."
                f" All times, and how they were taken: [{_PAGE}]({_PAGE})."
            ),
        ]
    )


def insert(text: str, block: str) -> str:
    """Replace what stands between the markers of a README.

    Raises
    ------
    ValueError
        Where the markers are not there exactly once and in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{_README} must hold {BEGIN} and {END} once each, in this order")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n\n{block}\n\n{END}{tail}"


def _table(header: list[str], rows: list[list[str]], *, align: str = "---:") -> str:
    rule = ["---", *(align for _ in header[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def main(arguments: list[str] | None = None) -> int:
    """Write the pages and plots, or check the pages."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    parser.add_argument("--root", type=Path, default=record.ROOT, help="where docs/ and README lie")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if out of date")
    options = parser.parse_args(arguments)
    documents = record.read_all(options.results)
    gpu_documents = gpu_report.read(options.results / "gpu")
    pages = {options.root / _PAGE: render_page(documents, gpu_documents)}
    readme = options.root / _README
    if readme.exists():
        pages[readme] = insert(readme.read_text(), render_readme(documents))
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if options.check:
        for path in stale:
            print(f"{path} is not what bench/results says: run python -m bench.report")
        return 1 if stale else 0
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    draw(documents, options.root / _IMAGES)
    gpu_report.draw(gpu_documents, options.root / _IMAGES)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
