# SPDX-License-Identifier: Apache-2.0
"""What result files mean: which lines belong together, and how ddkern stands on each."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from bench.baselines import ENTRIES, PEERS, SUBJECT
from bench.shapes import SUITES, Shape

SAME_RESULT = 1e-5  # relative difference of distortions up to which Lloyd runs are the same run
SAME_QUALITY = 1e-3  # how much higher a mean distortion may be end to end

# End to end, peers that take more than this many times as long as the fastest one with greedy seeds
# stop after a few seeds: they cannot be the one compared with, and on some lines they would take
# nine tenths of the time. Those whose distortion is lower than ddkern's by more than SAME_QUALITY
# go on: a few seeds do not tell whether that is chance.
SEEDS_FOR_ALL = 3
SLOW_PEER = 2.0

_ISA_ORDER = ("avx512bf16", "avx512vnni", "avx512", "avx2", "neon", "base")


@dataclass(frozen=True)
class Setting:
    """What must be equal for two lines to stand in one table."""

    cpu: str
    isa: str
    threads: int
    peers_limited: bool

    def rank(self) -> tuple[bool, int, str, int]:
        """Sort key: the strongest instruction set first."""
        order = _ISA_ORDER.index(self.isa) if self.isa in _ISA_ORDER else len(_ISA_ORDER)
        return self.peers_limited, order, self.cpu, self.threads

    @property
    def title(self) -> str:
        """The heading of the tables."""
        limited = ", peers held to AVX2" if self.peers_limited else ""
        return f"{self.isa}, {plural(self.threads, 'thread')}{limited}"


@dataclass(frozen=True)
class Line:
    """One measured line, with the run it comes from."""

    suite: str
    shape: Shape
    results: dict[str, dict[str, Any]]
    run: dict[str, Any]

    def seconds(self, key: str) -> float | None:
        """Median time of an implementation; None where it was not measured."""
        values = self.results.get(key, {}).get("seconds")
        return statistics.median(values) if values else None

    def distortion(self, key: str) -> float:
        """Mean distortion over the rounds: over the seeds, end to end."""
        return statistics.fmean(self.results[key]["distortion"])

    def excess(self, key: str) -> float:
        """Mean distortion of a peer relative to ddkern's over the same rounds, minus 1.

        A slow peer runs fewer of them.
        """
        return _excess(self.results[key]["distortion"], self.results[SUBJECT.key]["distortion"])

    def is_as_good(self, key: str) -> bool:
        """Tell whether a peer's mean distortion may be compared with ddkern's.

        It is set aside only where it is higher by more than chance explains: noise must not remove
        the strongest opponent.
        """
        theirs = self.results[key]["distortion"]
        own = self.results[SUBJECT.key]["distortion"][: len(theirs)]
        chance = 2.0 * math.sqrt(_variance_of_mean(theirs) + _variance_of_mean(own))
        return self.excess(key) <= max(SAME_QUALITY, chance / statistics.fmean(own))

    def peers(self) -> list[str]:
        """Keys of the peers that were measured."""
        return [e.key for e in PEERS if self.seconds(e.key) is not None]

    @property
    def isa(self) -> str:
        """The instruction set that ddkern used."""
        facts = self.run["implementations"].get(SUBJECT.key, {}).get("facts", {})
        return str(facts.get("isa", "ddkern absent"))

    def roof(self, name: str) -> float | None:
        """The highest probe of the run; None where the machine has no such unit."""
        values = [probe[name] for probe in self.run["probes"] if probe.get(name)]
        return max(values) if values else None


@dataclass(frozen=True)
class Verdict:
    """How ddkern stands on one line.

    Attributes
    ----------
    best : str or None
        Key of the fastest peer that did the same work.
    ratio : float or None
        Its median time over ddkern's; None where the results do not allow a comparison.
    difference : float or None
        Lloyd only: largest relative difference of distortions. End to end: ddkern's mean distortion
        relative to the lowest of the peers, minus 1.
    remark : str
        Why there is no ratio, or which faster peer was set aside; may be empty.
    """

    best: str | None
    ratio: float | None
    difference: float | None
    remark: str


def slow_peers(results: dict[str, dict[str, Any]]) -> set[str]:
    """Return the peers that need not run more seeds.

    faiss' own seeding is plain, and mostly too far off to be compared with: it sets no pace.
    """
    own = results.get(SUBJECT.key, {}).get("distortion", [])
    medians = {
        entry.key: statistics.median(results[entry.key]["seconds"])
        for entry in PEERS
        if results.get(entry.key, {}).get("seconds")
    }
    pace = [seconds for key, seconds in medians.items() if key != "faiss_own_seeds"]
    limit = SLOW_PEER * min(pace, default=math.inf)
    return {
        key
        for key, seconds in medians.items()
        if seconds > limit and not _is_higher(own, results[key]["distortion"])
    }


def _is_higher(own: list[float], theirs: list[float]) -> bool:
    # ddkern may have failed, and then nobody is better.
    return bool(own) and _excess(own, theirs) > SAME_QUALITY


def _excess(of: list[float], over: list[float]) -> float:
    # Relative, of mean distortions over the rounds that both ran.
    n = min(len(of), len(over))
    return statistics.fmean(of[:n]) / statistics.fmean(over[:n]) - 1.0


def judge(line: Line) -> Verdict:
    """Compare results first, then times."""
    own = line.seconds(SUBJECT.key)
    if own is None:
        return Verdict(None, None, None, "ddkern was not measured")
    if not line.peers():
        return Verdict(None, None, None, "no peer was measured")
    return _judge_quality(line, own) if line.suite == "end_to_end" else _judge_same(line, own)


def _judge_same(line: Line, own: float) -> Verdict:
    mine = line.distortion(SUBJECT.key)
    differences = {key: abs(line.distortion(key) - mine) / mine for key in line.peers()}
    largest = max(differences.values())
    apart = [key for key, difference in differences.items() if difference > SAME_RESULT]
    if apart:
        return Verdict(None, None, largest, f"results differ: {titles(apart)}")
    short = [
        key
        for key in (SUBJECT.key, *line.peers())
        if any(n != line.shape.iterations for group in line.results[key]["n_iter"] for n in group)
    ]
    if short:
        return Verdict(None, None, largest, f"iterations differ: {titles(short)}")
    best = _fastest(line, line.peers())
    return Verdict(best, _ratio(line, best, own), largest, "")


def _judge_quality(line: Line, own: float) -> Verdict:
    mine = line.results[SUBJECT.key]["distortion"]
    excess = max(_excess(mine, line.results[key]["distortion"]) for key in line.peers())
    if excess > SAME_QUALITY:
        return Verdict(None, None, excess, "results differ: ddkern's distortion is higher")
    comparable = [key for key in line.peers() if line.is_as_good(key)]
    if not comparable:
        return Verdict(None, None, excess, "results differ: every peer's distortion is higher")
    best = _fastest(line, comparable)
    reference = line.seconds(best) or 0.0
    aside = [
        f"{ENTRIES[key].title} takes {milliseconds(line.seconds(key))} ms at "
        f"{100 * line.excess(key):+.2f} % distortion"
        for key in line.peers()
        if key not in comparable and (line.seconds(key) or math.inf) < reference
    ]
    return Verdict(best, _ratio(line, best, own), excess, "; ".join(aside))


def _variance_of_mean(values: list[float]) -> float:
    return statistics.variance(values) / len(values) if len(values) > 1 else 0.0


def _fastest(line: Line, keys: list[str]) -> str:
    return min(keys, key=lambda key: line.seconds(key) or math.inf)


def _ratio(line: Line, best: str, own: float) -> float:
    return (line.seconds(best) or math.nan) / own


def operations(line: Line) -> tuple[float, float]:
    """Count the work of a line as if everything were recomputed.

    Returns
    -------
    flops : float
        ``2 n D k`` an iteration; end to end also ``2 n D`` for every candidate of greedy
        k-means++, and everything once a restart.
    values_read : float
        float32 values of the data that a pass for each iteration, and for each step of the
        seeding, would read.
    """
    shape = line.shape
    pairs = 2.0 * shape.n * shape.d
    if line.suite != "end_to_end":
        passes = float(shape.groups * shape.iterations)
        return passes * pairs * shape.k, passes * shape.n * shape.d
    counts = line.results[SUBJECT.key]["n_iter"]
    iterations = statistics.fmean(sum(groups) for groups in counts)
    candidates = 1 + (shape.k - 1) * (2 + int(math.log(shape.k)))
    flops = pairs * (shape.groups * candidates + iterations * shape.k)
    values = float(shape.n * shape.d) * (shape.groups * shape.k + iterations)
    return shape.n_init * flops, shape.n_init * values


def collect(documents: list[dict[str, Any]]) -> dict[Setting, dict[str, list[Line]]]:
    """Sort the newest measurement of every line by setting and suite, in the suites' order."""
    newest: dict[tuple[Setting, str, str], Line] = {}
    for document in documents:
        for entry in document["lines"]:
            shape = Shape.from_json(entry["shape"])
            line = Line(document["suite"], shape, entry["results"], document)
            setting = Setting(
                document["machine"]["cpu"],
                line.isa,
                int(document["threads"]),
                bool(document["peers_limited_to_avx2"]),
            )
            newest[setting, line.suite, shape.name] = line
    tables: dict[Setting, dict[str, list[Line]]] = {}
    for setting in sorted({key[0] for key in newest}, key=Setting.rank):
        tables[setting] = {}
        for suite, shapes in SUITES.items():
            names = [shape.name for shape in shapes]
            names += sorted({n for st, s, n in newest if st == setting and s == suite} - {*names})
            lines = [newest[setting, suite, n] for n in names if (setting, suite, n) in newest]
            if lines:
                tables[setting][suite] = lines
    return tables


def axis_lines(lines: list[Line], axis: str) -> list[Line]:
    """Pick the lines of one scaling plot, by size."""
    chosen = [line for line in lines if line.shape.name.rpartition("-")[0] == axis]
    return sorted(chosen, key=lambda line: int(getattr(line.shape, axis)))


def unique_runs(lines: list[Line]) -> list[dict[str, Any]]:
    """List the runs that lines come from, oldest first."""
    runs = {(line.run["date"], line.suite, line.run["command"]): line.run for line in lines}
    return [runs[key] for key in sorted(runs)]


def plural(number: int, noun: str) -> str:
    """Format a number of things."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def milliseconds(seconds: float | None) -> str:
    """Format a time in milliseconds with three digits; a dash for None."""
    if seconds is None:
        return "-"
    value = 1e3 * seconds
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def titles(keys: list[str]) -> str:
    """Join the names of implementations as tables print them."""
    return ", ".join(ENTRIES[key].title for key in keys)
