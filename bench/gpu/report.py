# SPDX-License-Identifier: Apache-2.0
"""From bench/results/gpu/*.json to the GPU sections of docs/benchmarks.md, and their plots."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import plots, record

if TYPE_CHECKING:
    from pathlib import Path

_SUBJECT = "ddkern"
_AXES = ("groups", "n", "d", "k")
_SUITE_TITLES = {"lloyd": "Lloyd iterations alone", "end_to_end": "End to end"}
_REASON = 60  # characters of a failure that a table has room for

METHOD = """\
Rows are generated on the device: each group is a mixture of 16 overlapping components in a random
subspace of rank 32, with isotropic noise. Groups are ragged like ImageNet's classes (about nine in
ten have 1300 rows) unless one size is given. A round runs every contestant once, in an order that
rotates; times are medians of the rounds, by device events around the whole call. Each has its input
in the form it takes: padded groups for torch, padded and rounded ones in bfloat16, ragged float32
rows for ddkern; making that form is not timed. Numbers in brackets are the contestant's time over
ddkern's.

* **Lloyd iterations alone**: the same initial centroids (random rows) and number of iterations: 20,
  or as many as all but one group in a hundred need. ddkern and torch end with labels for the
  centroids that they return. Distortions are computed in float64 from the centroids. A contestant
  of float32 precision has to agree to 1e-5; those of lower precision are shown with the difference
  of the distortion and the share of rows whose label is not the nearest centroid.
* **End to end**: k-means++, then at most 20 iterations, ending where no label changes; a round is a
  seed. torch gets greedy k-means++ with as many candidates as ddkern, batched over the groups.
  Whose mean distortion is not ddkern's to 0.1 % and two standard errors is not compared with.
* A contestant whose distortion is off by more than 1 % has no time here.
* **Floors**: what the measured ceilings allow. *Data once* reads the float32 rows once at the
  bandwidth of a copy; *each pass* once for every iteration and step of the seeding; *products* are
  all products of rows with centroids and candidates, at the rate of a bfloat16 matrix product.
  Work that is skipped counts all the same.

Reproduce with `bench/gpu_suite.sh`."""

_SHOWN_SHARE = 0.01  # of the time in kernels, for a kernel to have a line
_PROFILES = """\
Milliseconds of calls one after the other, of which the first also allocates; in brackets preparing
rows, seeding and Lloyd on the device. The tables are of one more call under torch's profiler."""

_CHECKS = """\
Distortion relative to ddkern's; in brackets the share of checked rows whose label is not the
nearest of the returned centroids (flash-kmeans returns labels for those before the last update):"""


@dataclass
class _Machine:
    """Everything measured on one kind of device, the newest of each line."""

    run: dict[str, Any]
    lines: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    profiles: list[dict[str, Any]] = field(default_factory=list)


def read(folder: Path, *, smoke: bool = False) -> list[dict[str, Any]]:
    """Read the documents of a folder, oldest first; those of tiny shapes only where asked for.

    Raises
    ------
    ValueError
        For a document of another schema.
    """
    if not folder.is_dir():
        return []
    paths = [*sorted(folder.glob("*.json")), *sorted(folder.glob("profile/*.json"))]
    documents = [json.loads(path.read_text()) for path in paths]
    for document in documents:
        if document.get("schema") != record.SCHEMA:
            raise ValueError(f"{folder}: schema {document.get('schema')!r}")
    kept = [document for document in documents if smoke or not document.get("smoke")]
    return sorted(kept, key=lambda document: str(document["date"]))


def render(documents: list[dict[str, Any]]) -> list[str]:
    """Return the paragraphs of the page; none without documents."""
    machines = _collect(documents)
    if not machines:
        return []
    parts = ["## On a GPU", METHOD]
    for number, (name, machine) in enumerate(machines.items()):
        parts += [f"### {name}", _facts(machine), _who(machine)]
        for suite, title in _SUITE_TITLES.items():
            if lines := machine.lines.get(suite):
                parts += [f"#### {title}", *_suite(list(lines.values()), suite)]
        if lines := machine.lines.get("scaling"):
            parts += _scaling(list(lines.values()), images=number == 0)
        if machine.profiles:
            parts += _profiles(machine.profiles)
        parts.append(_runs(machine))
    return parts


def draw(documents: list[dict[str, Any]], folder: Path) -> None:
    """Write the scaling plots of the first machine."""
    for machine in list(_collect(documents).values())[:1]:
        lines = list(machine.lines.get("scaling", {}).values())
        for axis in _AXES:
            chosen = _axis_lines(lines, axis)
            if len(chosen) < 2:
                continue
            curves = {
                title: [
                    (line["shape"][axis], 1e3 * seconds / line["iterations"])
                    for line in chosen
                    if (seconds := _seconds(line, key)) is not None
                ]
                for key, title in _titles(chosen).items()
            }
            plots.draw_curves(
                {title: points for title, points in curves.items() if points},
                folder / _image(axis),
                x_label=plots.AXIS_TITLES[axis],
                y_label="ms a Lloyd iteration, all groups",
                title=f"{machine.run['machine']['name']}, {_fixed(chosen[0]['shape'], axis)}",
            )


def _image(axis: str) -> str:
    return f"bench_gpu_scaling_{axis}.svg"


def _fixed(shape: dict[str, Any], varied: str) -> str:
    names = {"groups": "groups", "n": "n", "d": "D", "k": "k"}
    return ", ".join(f"{names[axis]}={shape[axis]}" for axis in _AXES if axis != varied)


def _collect(documents: list[dict[str, Any]]) -> dict[str, _Machine]:
    machines: dict[str, _Machine] = {}
    for document in [document for document in documents if document["suite"] != "profile"]:
        name = document["machine"]["name"]
        machine = machines.setdefault(name, _Machine(document))
        machine.run = document
        machine.runs.append(document)
        for line in document["lines"]:
            lines = machine.lines.setdefault(document["suite"], {})
            lines[line["shape"]["name"]] = line
    for document in [document for document in documents if document["suite"] == "profile"]:
        if document["machine"]["name"] in machines:
            machines[document["machine"]["name"]].profiles.append(document)
    return machines


def _facts(machine: _Machine) -> str:
    facts = machine.run["machine"]
    parts = [facts["name"]]
    if "memory_gib" in facts:
        parts += [f"{facts['memory_gib']:.0f} GiB", f"{facts['multiprocessors']} multiprocessors"]
        parts += [f"{facts['l2_mib']} MiB L2", f"driver {facts['driver']}"]
    if facts["cuda"]:
        parts.append(f"CUDA {facts['cuda']}")
    copies = [run["ceilings"]["copy_gbps"] for run in machine.runs]
    rates = [run["ceilings"]["bf16_tflops"] for run in machine.runs]
    versions: dict[str, str] = {"Python": facts["python"]}
    for run in machine.runs:
        versions |= run["versions"]
    return (
        f"{', '.join(parts)}.\n"
        f"Measured ceilings: copy (read + write) {_span(copies)} GB/s, bfloat16 matrix product "
        f"{_span(rates)} TFLOP/s.\n"
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}."
    )


def _span(values: list[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    texts = [f"{float(text):.10g}" for text in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def _titles(lines: list[dict[str, Any]]) -> dict[str, str]:
    titles: dict[str, str] = {}
    for line in lines:
        for key, entry in line["results"].items():
            if entry["status"] != "absent":
                titles.setdefault(key, entry["title"])
    return titles


def _who(machine: _Machine) -> str:
    lines = [line for suite in machine.lines.values() for line in suite.values()]
    rows: dict[str, list[str]] = {}
    absent: dict[str, set[str]] = {}
    for line in lines:
        for entry in line["results"].values():
            if entry["status"] == "absent":
                absent.setdefault(entry["title"], set()).add(entry["message"])
            else:
                rows.setdefault(entry["title"], [entry["title"], entry["precision"]])
    text = _table(["contestant", "precision"], list(rows.values()), align="---")
    missing = {title: why for title, why in absent.items() if title not in rows}
    if missing:
        listed = "; ".join(f"{title}: {', '.join(sorted(why))}" for title, why in missing.items())
        text += f"\n\nAbsent: {listed}."
    return text


def _seconds(line: dict[str, Any], key: str) -> float | None:
    entry = line["results"].get(key, {})
    values = entry.get("seconds") if entry.get("status") == "timed" else None
    return median(values) if values else None


def _ms(seconds: float) -> str:
    return f"{float(f'{1e3 * seconds:.3g}'):g}"


def _cell(line: dict[str, Any], key: str) -> str:
    entry = line["results"].get(key)
    if entry is None or entry["status"] == "absent":
        return "-"
    seconds = _seconds(line, key)
    if seconds is None:
        message = str(entry.get("message", entry["status"])).replace("|", "/")
        return f"{entry['status']}: {message[:_REASON]}"
    own = _seconds(line, _SUBJECT)
    if key == _SUBJECT or own is None:
        return _ms(seconds)
    if not entry.get("agrees", True):
        return f"{_ms(seconds)} (results differ)"
    return f"{_ms(seconds)} ({seconds / own:.1f}x)"


def _best(line: dict[str, Any], *, float32: bool) -> str:
    """Ratio to the fastest peer: of float32 precision, or of any."""
    own = _seconds(line, _SUBJECT)
    found = [
        (seconds, entry["title"])
        for key, entry in line["results"].items()
        if not key.startswith(_SUBJECT)
        and (entry.get("float32") or not float32)
        and entry.get("agrees", True)
        and (seconds := _seconds(line, key)) is not None
    ]
    if own is None or not found:
        return "-"
    seconds, title = min(found)
    return f"**{seconds / own:.1f}x** ({title})"


def _suite(lines: list[dict[str, Any]], suite: str) -> list[str]:
    titles = _titles(lines)
    count = "seeds" if suite == "end_to_end" else "iterations"
    header = ["groups x rows x D, k", count, *titles.values()]
    header += ["over the fastest float32 peer", "over the fastest of any precision"]
    rows, floors, checks, notes = [], [], [], []
    for line in lines:
        label = line["shape"]["label"]
        number = line["rounds"] if suite == "end_to_end" else line["iterations"]
        if line["shape"]["groups"] < line["groups_asked"]:
            label += f" (of {line['groups_asked']} groups)"
        cells = [_cell(line, key) for key in titles]
        best = [_best(line, float32=True), _best(line, float32=False)]
        rows.append([label, str(number), *cells, *best])
        floors.append([label, *_floor_cells(line)])
        checks.append([label, *(_check(line["results"].get(key, {})) for key in titles)])
        executed = line["results"].get(_SUBJECT, {}).get("notes", {}).get("mean_iterations")
        if suite == "lloyd" and executed is not None and executed < 0.995 * line["iterations"]:
            notes.append(
                f"* {label}: groups that had converged ended earlier in ddkern, after "
                f"{executed:.1f} iterations on average."
            )
    floor_header = ["groups x rows x D, k", "ddkern", "data once", "each pass", "products"]
    floor_header += ["ddkern over the larger of data once and products"]
    return [
        "Milliseconds for all groups:",
        _table(header, rows),
        *(["\n".join(notes)] if notes else []),
        "Floors, in milliseconds:",
        _table(floor_header, floors),
        _CHECKS,
        _table(["groups x rows x D, k", *titles.values()], checks),
    ]


def _floor_cells(line: dict[str, Any]) -> list[str]:
    own, floors = _seconds(line, _SUBJECT), line["floors"]
    floor = max(floors["bytes_once"], floors["operations"])
    return [
        "-" if own is None else _ms(own),
        *(_ms(floors[name]) for name in ("bytes_once", "bytes_each", "operations")),
        "-" if own is None else f"{own / floor:.1f}x",
    ]


def _check(entry: dict[str, Any]) -> str:
    if "relative_difference" not in entry:
        return "-"
    text = "0" if entry.get("reference") else f"{entry['relative_difference']:+.0e}"
    if entry.get("rows_checked"):
        text += f" ({100 * entry['not_nearest'] / entry['rows_checked']:.3g} %)"
    return text


def _axis_lines(lines: list[dict[str, Any]], axis: str) -> list[dict[str, Any]]:
    """Lines that differ in one size only: the largest such set, by size."""
    sets: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for line in lines:
        rest = tuple(line["shape"][other] for other in _AXES if other != axis)
        sets.setdefault(rest, []).append(line)
    chosen: list[dict[str, Any]] = max(sets.values(), key=len, default=[])
    return sorted(chosen, key=lambda line: int(line["shape"][axis]))


def _scaling(lines: list[dict[str, Any]], *, images: bool) -> list[str]:
    parts = ["#### How the time grows"]
    for axis in _AXES:
        chosen = _axis_lines(lines, axis)
        if len(chosen) < 2:
            continue
        titles = _titles(chosen)
        if images:
            parts.append(f"![Time against {plots.AXIS_TITLES[axis]}](images/{_image(axis)})")
        rows = [
            [line["shape"]["label"], str(line["iterations"]), *(_cell(line, key) for key in titles)]
            for line in chosen
        ]
        parts.append(_table(["groups x rows x D, k", "iterations", *titles.values()], rows))
    return parts if len(parts) > 1 else []


def _profiles(documents: list[dict[str, Any]]) -> list[str]:
    parts = ["#### Where the time goes", _PROFILES]
    for document in documents:
        for run in document["runs"]:
            calls = [
                f"{call['wall_ms']:.0f} ({call['prepare_ms']:.0f} + {call['seed_ms']:.0f} + "
                f"{call['lloyd_ms']:.0f})"
                for call in run["calls"]
            ]
            notes = run["notes"]
            parts.append(
                f"{run['label']}, {_SUITE_TITLES[run['suite']].lower()} (commit "
                f"{document['commit'][:12]}, `{run['command']}`): {', '.join(calls)}; "
                f"{notes['mean_iterations']:.1f} iterations a group, "
                f"{100 * notes['rows_rechecked'] / notes['rows_assigned']:.1f} % of assignments "
                f"rechecked, {notes['rows_exact']} in real arithmetic."
            )
            rows = [
                [
                    f"`{kernel['name']}`",
                    f"{kernel['ms']:.1f}",
                    str(kernel["launches"]),
                    f"{100 * kernel['ms'] / run['kernels_ms']:.0f} %",
                ]
                for kernel in run["kernels"]
                if kernel["ms"] >= _SHOWN_SHARE * run["kernels_ms"]
            ]
            parts.append(_table(["kernel", "ms", "launches", "share"], rows))
    return parts


def _runs(machine: _Machine) -> str:
    rows = [
        [
            run["suite"],
            run["date"],
            (run["commit"] or "unknown")[:12],
            f"`{run['command']}`",
        ]
        for run in machine.runs
    ]
    text = _table(["suite", "date (UTC)", "commit", "command"], rows, align="---")
    skipped = [
        f"{run['suite']} {item['name']}: {item['reason'][:_REASON]}"
        for run in machine.runs
        for item in run["skipped"]
    ]
    return text + (f"\n\nNot measured: {'; '.join(skipped)}." if skipped else "")


def _table(header: list[str], rows: list[list[str]], *, align: str = "---:") -> str:
    rule = ["---", *(align for _ in header[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))
