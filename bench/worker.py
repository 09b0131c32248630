# SPDX-License-Identifier: Apache-2.0
"""One implementation in a process of its own.

Apart, no implementation shares a thread pool, an allocator or an OpenMP runtime with another, and
one that crashes takes only itself down. The runner lets one worker compute at a time.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from multiprocessing.connection import Connection

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerError(RuntimeError):
    """The implementation raised or died; the message is the last line of its traceback."""


class Worker:
    """The runner's end of a worker process.

    Parameters
    ----------
    key : str
        Key in `bench.baselines.ENTRIES`, or ``"probe"`` for the probes of the machine.
    threads : int
        Limit for every thread pool in the process.
    environment : mapping
        Variables set in the process before anything is imported.
    """

    def __init__(
        self, key: str, threads: int, environment: Mapping[str, str] | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(key, threads, far_end), daemon=True)
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads)) | dict(environment or {})
        with _environment(variables):
            self._process.start()
        far_end.close()
        self.key = key
        try:
            self.started: dict[str, Any] = self._receive()
        except WorkerError:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """Run a method of `_Server` in the process and return its result."""
        try:
            self._connection.send((method, arguments))
        except OSError as error:
            raise WorkerError(f"{self.key} has died") from error
        return self._receive()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._connection.send(("quit", ()))
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()
        self._connection.close()

    def _receive(self) -> Any:
        try:
            ok, payload = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(timeout=5)
            raise WorkerError(f"died with exit code {self._process.exitcode}") from error
        if not ok:
            raise WorkerError(payload)
        return payload


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Server:
    """What runs in the process. Results are small: centroids are judged here, not sent."""

    def __init__(self, key: str, threads: int) -> None:
        from bench.baselines import create

        self._implementation = create(key, threads)

    def describe(self) -> dict[str, Any]:
        return {
            "versions": self._implementation.versions(),
            "facts": self._implementation.facts(),
            "needs_seeds": self._implementation.needs_seeds,
        }

    def load(self, shape: dict[str, Any], data: str, seeds: str) -> None:
        from bench.shapes import Problem, Shape

        self._problem = Problem.of(np.load(data), Shape.from_json(shape))
        self._seeds = np.load(seeds)
        self._implementation.prepare(self._problem, self._seeds)

    def lloyd(self) -> dict[str, Any]:
        return self._timed(self._implementation.lloyd, self._problem, self._seeds)

    def fit(self, random_state: int, drawn: list[str]) -> dict[str, Any]:
        from bench.baselines.interface import Draw

        draw = Draw(random_state, [np.load(path) for path in drawn])
        return self._timed(self._implementation.fit, self._problem, draw)

    def draw_seeds(self, random_state: int, folder: str) -> dict[str, Any]:
        from bench.baselines.sklearn import Sklearn

        assert isinstance(self._implementation, Sklearn)
        start = time.perf_counter()
        drawn = self._implementation.draw_seeds(self._problem, random_state)
        seconds = time.perf_counter() - start
        paths = [str(Path(folder) / f"drawn-{number}.npy") for number in range(len(drawn))]
        for path, seeds in zip(paths, drawn, strict=True):
            np.save(path, seeds)
        return {"seconds": seconds, "paths": paths}

    def evaluate(self) -> list[float]:
        """Judge the last result; apart from the call, so that a call is nothing but the work."""
        from bench.quality import group_distortions

        distortions = group_distortions(self._problem, self._last.centroids)
        gc.collect()
        return distortions

    def _timed(self, function: Any, *arguments: Any) -> dict[str, Any]:
        start = time.perf_counter()
        fit = function(*arguments)
        seconds = time.perf_counter() - start
        self._last = fit
        return {"seconds": seconds, "n_iter": fit.n_iter, "notes": fit.notes}


class _ProbeServer:
    """The probes of the machine, in a fresh process under the same limits."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def describe(self) -> dict[str, Any]:
        return {}

    def probe(self) -> dict[str, Any]:
        from bench.machine import probe

        return probe(self._threads)


def _serve(key: str, threads: int, connection: Connection) -> None:
    server: Any = None
    method, arguments = "describe", ()
    while method != "quit":
        try:
            if server is None:
                server = _ProbeServer(threads) if key == "probe" else _Server(key, threads)
            reply = (True, getattr(server, method)(*arguments))
        except ImportError as error:
            reply = (False, f"not installed: {error}")
        except Exception as error:  # noqa: BLE001 (sent to the other end, whatever it is)
            traceback.print_exc(file=sys.stderr)
            reply = (False, f"{type(error).__name__}: {error}")
        try:
            connection.send(reply)
            method, arguments = connection.recv()
        except (EOFError, OSError):
            return  # the runner has gone
