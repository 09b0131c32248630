# SPDX-License-Identifier: Apache-2.0
"""One suite on one device: every contestant is checked, then all of them take turns."""

from __future__ import annotations

import datetime as dt
import functools
import gc
import os
import time
import traceback
from dataclasses import replace
from pathlib import Path
from statistics import median, stdev
from typing import Any

import torch

from bench import record
from bench.gpu import check, clock
from bench.gpu.peers import SUBJECT_KEY
from bench.gpu.peers.interface import Contestant, Fit
from bench.gpu.peers.torch_lines import TorchLines
from bench.gpu.problem import GpuShape, Problem, make_problem

SAME_RESULT = 1e-5  # relative difference of distortions between float32 contestants
SAME_QUALITY = 1e-3  # the same of mean distortions end to end, whatever the precision
COMPARABLE = 1e-2  # beyond it a result is another one, and its time says nothing
_ONE_ROUND = 20.0  # seconds a call from which on one round has to do
# Up to here a second input set keeps repeated runs out of the caches; larger ones outgrow them.
_ROTATED_BYTES = 2**31


class Session:
    """Measures lines and keeps the document; it is written after every line."""

    def __init__(
        self,
        suite: str,
        device: torch.device,
        *,
        contestants: list[Contestant],
        rounds: int,
        budget: float,
        out: Path,
        command: str,
        smoke: bool,
        keep_iterations: bool = False,
    ) -> None:
        self._suite = suite
        self._device = device
        self._contestants = contestants
        self._rounds = rounds
        self._keep_iterations = keep_iterations
        self._deadline = time.monotonic() + budget
        self._out = out
        self.document: dict[str, Any] = {
            "schema": record.SCHEMA,
            "suite": suite,
            "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            "command": command,
            "commit": os.environ.get("DDKERN_COMMIT"),
            "smoke": smoke,
            "machine": clock.describe(device),
            "ceilings": clock.ceilings(device),
            "versions": {},
            "lines": [],
            "skipped": [],
        }
        self.write()

    def write(self) -> None:
        """Write the document as it is."""
        record.write(self.document, self._out)

    def run(self, shapes: list[GpuShape]) -> None:
        """Measure the lines in order, as far as the budget reaches."""
        for shape in shapes:
            if time.monotonic() > self._deadline:
                self.document["skipped"].append({"name": shape.name, "reason": "out of time"})
                self.write()
                continue
            try:
                self.document["lines"].append(self._line(shape))
            except Exception as error:  # noqa: BLE001  the other lines can still be measured
                self.document["skipped"].append({"name": shape.name, "reason": _message(error)})
            self._release()
            self.write()

    def _release(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    # -------------------------------------------------------------------------------- one line
    def _line(self, asked: GpuShape) -> dict[str, Any]:
        free = clock.free_bytes(self._device)
        shape = asked.fitted(free)
        one_set = 4 * shape.groups * shape.n * shape.d
        sets = 2 if one_set <= min(_ROTATED_BYTES, free // 8) else 1
        problems = [make_problem(shape, self._device, seed) for seed in range(sets)]
        line: dict[str, Any] = {
            "shape": shape.to_json(),
            "groups_asked": asked.groups,
            "rows": len(problems[0].x),
            "free_gib": free / 2**30,
            "input_sets": sets,
            "iterations": shape.iterations,
            "results": {},
        }
        self.document["open_line"] = line
        if self._suite != "end_to_end" and not self._keep_iterations:
            line["iterations"] = self._fewest_iterations(problems[0], line)
        running = self._warm_up(problems[0], line)
        self._take_turns(running, problems, line)
        if self._suite == "end_to_end":
            _judge_seeds(line)
        line["floors"] = floors(
            shape, line["rows"], line["iterations"], self.document["ceilings"], self._suite
        )
        del self.document["open_line"]
        return line

    def _fewest_iterations(self, problem: Problem, line: dict[str, Any]) -> int:
        """Return the iterations that all but one group in a hundred need, at most those asked."""
        subject = self._contestants[0]
        try:
            fit = subject.fit_lloyd(subject.prepare(problem), problem, problem.shape.iterations)
        except Exception as error:  # noqa: BLE001
            line["iterations_unknown"] = _message(error)
            return problem.shape.iterations
        line["iterations_asked"] = problem.shape.iterations
        needed: int = fit.notes["n_iter"][1]
        return max(1, min(problem.shape.iterations, needed))

    def _call(
        self, contestant: Contestant, problem: Problem, line: dict[str, Any], seed: int
    ) -> tuple[Fit, float, float]:
        """Prepare, let the allocators and kernels warm up, and time one call."""
        self._release()
        inputs = contestant.prepare(problem)
        if isinstance(contestant, TorchLines) and contestant.key not in line["results"]:
            contestant.choose(inputs, problem)
        contestant.fit_lloyd(inputs, problem, 1)
        run = (
            functools.partial(contestant.fit_end_to_end, inputs, problem, line["iterations"], seed)
            if self._suite == "end_to_end"
            else functools.partial(contestant.fit_lloyd, inputs, problem, line["iterations"])
        )
        return clock.timed(run, self._device)

    def _warm_up(self, problem: Problem, line: dict[str, Any]) -> list[Contestant]:
        """Check everybody's result; return those whose time means something."""
        results = line["results"]
        running: list[Contestant] = []
        reference: torch.Tensor | None = None
        for contestant in self._contestants:
            entry: dict[str, Any] = {
                "title": contestant.title,
                "precision": contestant.precision,
                "float32": contestant.float32,
                "seconds": [],
                "wall": [],
            }
            try:
                if reason := contestant.available(problem):
                    results[contestant.key] = entry | {"status": "absent", "message": reason}
                    continue
                self.document["versions"] |= contestant.versions()
                fit, seconds, _ = self._call(contestant, problem, line, seed=0)
                found = check.distortion(problem, fit.centroids)
                entry |= {"first_seconds": seconds, "notes": fit.notes}
                entry |= _exactness(problem, fit)
                entry["warm_up_distortion"] = float(found.mean())
                if reference is None:
                    reference = found
                    entry["reference"] = True
                entry |= self._agreement(contestant, found, reference)
            except Exception as error:  # noqa: BLE001
                entry |= {"status": "failed", "message": _message(error)}
                traceback.print_exc()
            results[contestant.key] = entry
            if entry["status"] == "timed":
                running.append(contestant)
            self.write()
        return running

    def _agreement(
        self, contestant: Contestant, found: torch.Tensor, reference: torch.Tensor
    ) -> dict[str, Any]:
        difference = float((found.mean() - reference.mean()) / reference.mean())
        worst = float(((found - reference).abs() / reference).max())
        facts = {"relative_difference": difference, "worst_group_difference": worst}
        if not abs(difference) <= COMPARABLE:
            message = f"distortion differs by {difference:+.2e}"
            return {**facts, "status": "not comparable", "message": message}
        if self._suite != "end_to_end":
            facts["agrees"] = abs(difference) <= SAME_RESULT or not contestant.float32
        return {**facts, "status": "timed"}

    def _take_turns(
        self, running: list[Contestant], problems: list[Problem], line: dict[str, Any]
    ) -> None:
        results = line["results"]
        slowest = max((results[c.key]["first_seconds"] for c in running), default=0.0)
        rounds = 1 if slowest > _ONE_ROUND else self._rounds
        done = 0
        for turn in range(rounds):
            if turn and time.monotonic() > self._deadline:
                break
            problem = problems[turn % len(problems)]
            first = turn % max(1, len(running))
            for contestant in running[first:] + running[:first]:
                entry = results[contestant.key]
                if entry["status"] != "timed":
                    continue
                try:
                    fit, seconds, wall = self._call(contestant, problem, line, seed=turn)
                    if self._suite == "end_to_end":
                        mean = float(check.distortion(problem, fit.centroids).mean())
                        entry.setdefault("distortion", []).append(mean)
                        entry.setdefault("iterations", []).append(fit.notes.get("iterations"))
                except Exception as error:  # noqa: BLE001
                    entry |= {"status": "failed", "message": _message(error)}
                    continue
                entry["seconds"].append(seconds)
                entry["wall"].append(wall)
                entry["notes"] = fit.notes
            done += 1
        line["rounds"] = done


def _exactness(problem: Problem, fit: Fit) -> dict[str, Any]:
    if fit.labels is None:
        return {}
    wrong, looked_at = check.not_nearest(problem, fit.centroids, fit.labels)
    return {"not_nearest": wrong, "rows_checked": looked_at}


def _judge_seeds(line: dict[str, Any]) -> None:
    """End to end everybody draws seeds of its own: compare mean distortions over the rounds.

    A difference within two standard errors of the means is none.
    """
    own = line["results"].get(SUBJECT_KEY, {}).get("distortion")
    for entry in line["results"].values():
        theirs = entry.get("distortion")
        if own and theirs and len(own) == len(theirs):
            # Pairs: rounds may be on different input sets.
            each = [other / mine - 1 for mine, other in zip(own, theirs, strict=True)]
            noise = stdev(each) / len(each) ** 0.5 if len(each) > 1 else 0.0
            entry["relative_difference"] = sum(each) / len(each)
            entry["agrees"] = abs(entry["relative_difference"]) <= SAME_QUALITY + 2 * noise


def floors(
    shape: GpuShape, rows: int, iterations: int, ceilings: dict[str, Any], suite: str
) -> dict[str, float]:
    """Return times, in seconds, that the measured ceilings put under a line.

    ``bytes_once``: the float32 rows are read once. ``bytes_each``: once for every iteration and
    for the final assignment (end to end also for every step of the seeding). ``operations``: all
    products of rows with centroids and candidates, at the rate of a bfloat16 matrix product.
    """
    passes, products = float(iterations + 1), float((iterations + 1) * shape.k)
    if suite == "end_to_end":
        passes += shape.k
        products += 1 + (shape.k - 1) * shape.trials
    read = 4.0 * rows * shape.d / (1e9 * ceilings["copy_gbps"])
    rate = 1e12 * ceilings["bf16_tflops"]
    return {
        "bytes_once": read,
        "bytes_each": passes * read,
        "operations": 2.0 * rows * shape.d * products / rate,
    }


def summary(document: dict[str, Any]) -> list[str]:
    """Return a short table: medians in milliseconds."""
    lines = []
    for line in document["lines"]:
        lines.append(f"{document['suite']}: {line['shape']['label']}, {line['iterations']} it.")
        for key, entry in line["results"].items():
            if entry["status"] == "timed" and entry["seconds"]:
                wrong = entry.get("not_nearest")
                share = "" if wrong is None else f" wrong {wrong}/{entry['rows_checked']}"
                lines.append(
                    f"  {key:12s} {1e3 * median(entry['seconds']):10.2f} ms"
                    f"  rel {entry['relative_difference']:+.1e}{share}"
                )
            elif entry["status"] != "absent":
                lines.append(f"  {key:12s} {entry['status']}: {entry['message'][:90]}")
        under = "  ".join(f"{k} {1e3 * v:.2f}" for k, v in line["floors"].items())
        lines.append(f"  {'floors (ms)':12s} {under}")
    lines += [f"{s['name']}: skipped, {s['reason'][:90]}" for s in document["skipped"]]
    return lines


def wrong_rows(document: dict[str, Any]) -> int:
    """Return how many assignments of ddkern itself were found to be wrong."""
    return sum(
        entry.get("not_nearest", 0)
        for line in document["lines"]
        for key, entry in line["results"].items()
        if key.startswith(SUBJECT_KEY)
    )


def failures(document: dict[str, Any]) -> list[str]:
    """Return the names of the lines in which ddkern itself has no time."""
    return [
        line["shape"]["name"]
        for line in document["lines"]
        if not line["results"].get(SUBJECT_KEY, {}).get("seconds")
    ]


def smaller(shape: GpuShape, groups: int) -> GpuShape:
    """Return the shape with fewer groups, for a look at a line in little time."""
    return replace(shape, groups=min(groups, shape.groups))


def _message(error: BaseException) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0] if first else ''}"[:300]
