# SPDX-License-Identifier: Apache-2.0
"""pytest-benchmark form: ddkern is the benchmark, the peers run in its untimed set-up.

Each pytest-benchmark round is one interleaved round. The peers' medians go to ``extra_info``, and
all measurements to ``bench/results/`` in the form that `bench.report` reads.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import pytest

from bench import record
from bench.baselines import SUBJECT
from bench.run import default_path
from bench.runner import DEFAULT_ROUNDS, Session
from bench.shapes import DataUnavailableError, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ddkern benchmarks")
    group.addoption("--bench-threads", type=int, default=2, help="threads of everybody")
    group.addoption("--bench-rounds", type=int, help="rounds (end to end: seeds) of every line")
    group.addoption("--bench-isa", help="hold ddkern to this instruction set")


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Start the workers for the suite that the module names in ``SUITE``."""
    suite = request.module.SUITE
    isa = request.config.getoption("--bench-isa")
    command = f"pytest bench/kmeans/bench_{suite}.py --benchmark-only"
    threads = request.config.getoption("--bench-threads")
    with Session(suite, threads=threads, isa=isa, command=command) as session:
        yield session
        if session.document["lines"]:
            session.probe()
            record.write(session.document, default_path(suite, isa))


@pytest.fixture
def measure(
    request: pytest.FixtureRequest, session: Session, benchmark: Any
) -> Callable[[Shape], None]:
    """Measure one line with ``benchmark.pedantic`` and adds it to the document."""
    if SUBJECT.key in session.document["absent"]:
        pytest.fail(f"ddkern: {session.document['absent'][SUBJECT.key]}")
    rounds = request.config.getoption("--bench-rounds") or DEFAULT_ROUNDS[session.suite]

    def run(shape: Shape) -> None:
        try:
            line = session.line(shape)
        except DataUnavailableError as error:
            pytest.skip(str(error))
        benchmark.group = shape.label
        benchmark.pedantic(
            line.run_subject,
            setup=line.run_peers,
            teardown=line.end_round,
            rounds=rounds,
            iterations=1,
        )
        for key, result in line.results.items():
            benchmark.extra_info[key] = result.get("error") or statistics.median(result["seconds"])
        session.document["lines"].append(line.finish())

    return run
