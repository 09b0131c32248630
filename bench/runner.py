# SPDX-License-Identifier: Apache-2.0
"""Interleaved measurement: every round runs every implementation once, one after the other.

A machine that is busy or throttled for a while is so for everybody in that round, and the medians
over the rounds stay comparable.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import record
from bench.analysis import SEEDS_FOR_ALL, slow_peers
from bench.baselines import ENTRIES, PEERS, SUBJECT
from bench.shapes import Problem, Shape, make_data, make_seeds
from bench.worker import Worker, WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from typing_extensions import Self

# Longer than an idle OpenMP thread spins by default: the next one in line has both cores.
_PAUSE_SECONDS = 0.02

# How each library is told to stop at AVX2; oneDAL offers no such switch.
_PEERS_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "FAISS_OPT_LEVEL": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}

DEFAULT_ROUNDS = {"lloyd": 5, "end_to_end": 10, "scaling": 3}


class Session:
    """The workers of one run, and the document that it fills.

    Parameters
    ----------
    suite : {"lloyd", "end_to_end", "scaling"}
    threads : int
        Threads of everybody.
    isa : str, optional
        Instruction set that ddkern is held to (``DDKERN_ISA``).
    limit_peers : bool
        Hold the peers to AVX2 too, where they can be told.
    peers : iterable of str, optional
        Keys of the peers to run; all by default.
    command : str
        What to write down as the command that reproduces the run.
    """

    def __init__(
        self,
        suite: str,
        *,
        threads: int,
        isa: str | None = None,
        limit_peers: bool = False,
        peers: Iterable[str] | None = None,
        command: str = "",
    ) -> None:
        self.suite = suite
        self.document = record.new(suite, threads, command)
        self.document["isa_forced"] = isa
        self.document["peers_limited_to_avx2"] = limit_peers
        self._folder = tempfile.TemporaryDirectory(prefix="ddkern-bench-")
        self._threads = threads
        self._isa_environment = {"DDKERN_ISA": isa} if isa else {}
        self.workers: dict[str, Worker] = {}
        wanted = {entry.key for entry in PEERS} if peers is None else set(peers)
        if unknown := wanted - {entry.key for entry in PEERS}:
            raise ValueError(f"unknown peers {sorted(unknown)}; there are {[e.key for e in PEERS]}")
        for entry in (SUBJECT, *PEERS):
            if suite not in entry.suites:
                continue
            if entry is not SUBJECT and entry.key not in wanted:
                self.document["absent"][entry.key] = "not asked for"
                continue
            self._start(entry.key, _PEERS_AVX2 if limit_peers else {})
        self.probe()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and remove the data."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()
        self._folder.cleanup()

    def probe(self) -> None:
        """Measure the roofs once more; the report takes the highest of a run."""
        worker = Worker("probe", self._threads, self._isa_environment)
        try:
            self.document["probes"].append(worker.call("probe"))
        finally:
            worker.close()

    def line(self, shape: Shape) -> Line:
        """Make the data of ``shape`` and load it into every worker.

        Raises
        ------
        DataUnavailableError
            Where the data is not on this machine.
        """
        return Line(self, shape, Path(self._folder.name))

    def measure(self, shape: Shape, rounds: int) -> dict[str, Any]:
        """Run all rounds of one line, without pytest."""
        line = self.line(shape)
        for _ in range(rounds):
            line.run_peers()
            line.run_subject()
            line.end_round()
        return line.finish()

    def _start(self, key: str, limits: dict[str, str]) -> None:
        environment = self._isa_environment if key == SUBJECT.key else limits
        try:
            worker = Worker(key, self._threads, environment)
        except WorkerError as error:
            self.document["absent"][key] = str(error)
            return
        self.workers[key] = worker
        self.document["implementations"][key] = {
            "versions": worker.started["versions"],
            "facts": worker.started["facts"],
        }


class Line:
    """One shape under measurement."""

    def __init__(self, session: Session, shape: Shape, folder: Path) -> None:
        self._session = session
        self._shape = shape
        self._folder = folder
        self._round = 0
        self._results: dict[str, dict[str, Any]] = {}
        self._stopped: set[str] = set()
        self._order = [key for key in session.workers if key != SUBJECT.key]
        problem = Problem.of(make_data(shape), shape)
        data, seeds = folder / "x.npy", folder / "seeds.npy"
        np.save(data, problem.x)
        np.save(seeds, make_seeds(problem))
        del problem
        for key in list(session.workers):
            self._call(key, "load", shape.to_json(), str(data), str(seeds))
        if session.suite != "end_to_end":
            # An untimed round: first touches of memory and caches of kernels belong to nobody.
            for key in self._alive():
                self._call(key, "lloyd")

    def run_peers(self) -> None:
        """Run one round of all peers, in an order that rotates from round to round."""
        if self._session.suite == "end_to_end" and self._round == SEEDS_FOR_ALL:
            self._stopped = slow_peers(self._results)
        turn = self._round % max(1, len(self._order))
        seeds: dict[str, Any] = {"seconds": 0.0, "paths": []}
        running = [key for key in self._alive() if key not in self._stopped]
        needs_seeds = {key for key in running if self._session.workers[key].started["needs_seeds"]}
        if self._session.suite == "end_to_end" and needs_seeds:
            drawn = self._call("sklearn", "draw_seeds", self._round, str(self._folder))
            if drawn is None:
                for key in needs_seeds:
                    self._results[key] = {"error": "needs scikit-learn's seeds"}
            else:
                seeds = drawn
        for key in self._order[turn:] + self._order[:turn]:
            if key in running and key in self._alive():
                time.sleep(_PAUSE_SECONDS)
                self._run(key, seeds if key in needs_seeds else {"seconds": 0.0, "paths": []})
                self._evaluate(key)
        time.sleep(_PAUSE_SECONDS)

    def run_subject(self) -> None:
        """Run ddkern: the time of this call is the time of the measurement."""
        if SUBJECT.key in self._alive():
            self._run(SUBJECT.key, {"seconds": 0.0, "paths": []})

    def end_round(self) -> None:
        """Judge what ddkern returned, outside every measurement."""
        if SUBJECT.key in self._alive():
            self._evaluate(SUBJECT.key)
        self._round += 1

    def finish(self) -> dict[str, Any]:
        """Return the line for the document."""
        for path in self._folder.glob("*.npy"):
            path.unlink()
        results = {key: self._results[key] for key in ENTRIES if key in self._results}
        return {"shape": self._shape.to_json(), "rounds": self._round, "results": results}

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """Return what has been measured so far, by implementation."""
        return self._results

    def _alive(self) -> list[str]:
        return [k for k in self._session.workers if "error" not in self._results.get(k, {})]

    def _run(self, key: str, seeds: dict[str, Any]) -> None:
        if self._session.suite == "end_to_end":
            measured = self._call(key, "fit", self._round, seeds["paths"])
        else:
            measured = self._call(key, "lloyd")
        if measured is None:
            return
        result = self._results.setdefault(
            key, {"seconds": [], "distortion": [], "n_iter": [], "notes": measured["notes"]}
        )
        result["seconds"].append(measured["seconds"] + seeds["seconds"])
        if seeds["paths"]:
            result.setdefault("seconds_of_seeds", []).append(seeds["seconds"])
        result["n_iter"].append(measured["n_iter"])

    def _evaluate(self, key: str) -> None:
        # Fixed-length runs end at the same centroids in every round; end to end, a round is a seed.
        if self._round > 0 and self._session.suite != "end_to_end":
            return
        distortions = self._call(key, "evaluate")
        if distortions is not None:
            result = self._results[key]
            result["distortion"].append(float(np.mean(distortions)))
            result.setdefault("group_distortion", distortions)

    def _call(self, key: str, method: str, *arguments: Any) -> Any:
        worker = self._session.workers.get(key)
        if worker is None:
            return None
        try:
            return worker.call(method, *arguments)
        except WorkerError as error:
            self._results[key] = {"error": str(error)}
            return None
