# SPDX-License-Identifier: Apache-2.0
"""The benchmarks without pytest: ``python -m bench.run --suite lloyd --shapes all --threads 2``."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench import record
from bench.baselines import ENTRIES, PEERS
from bench.runner import DEFAULT_ROUNDS, Session
from bench.shapes import SUITES, DataUnavailableError


def main(arguments: list[str] | None = None) -> int:
    """Run one suite or a part of it and write its JSON document after every line."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    shapes = {shape.name: shape for shape in SUITES[options.suite]}
    names = list(shapes) if options.shapes == "all" else options.shapes.split(",")
    if unknown := [name for name in names if name not in shapes]:
        raise SystemExit(f"--shapes: {unknown} not in {options.suite}; there are {list(shapes)}")
    out = options.out or default_path(options.suite, options.isa, options.limit_peers)
    rounds = options.rounds or DEFAULT_ROUNDS[options.suite]
    peers = None if options.peers == "all" else [p for p in options.peers.split(",") if p]
    with Session(
        options.suite,
        threads=options.threads,
        isa=options.isa,
        limit_peers=options.limit_peers,
        peers=peers,
        command="python -m bench.run " + " ".join(_repeatable(options)),
    ) as session:
        for key, reason in session.document["absent"].items():
            print(f"{key}: absent ({reason})")
        for name in names:
            start = time.perf_counter()
            try:
                line = session.measure(shapes[name], rounds)
            except DataUnavailableError as error:
                print(f"{name}: skipped, {error}")
                continue
            session.document["lines"].append(line)
            record.write(session.document, out)
            print(f"{shapes[name].label}  [{time.perf_counter() - start:.0f} s]")
            print("".join(_summary(key, result) for key, result in line["results"].items()), end="")
            sys.stdout.flush()
        session.probe()
        record.write(session.document, out)
    print(f"written to {out}")
    return 0


def default_path(suite: str, isa: str | None, limit_peers: bool = False) -> Path:
    """Return where a run goes by default: one file for each suite and forced instruction set."""
    name = suite + (f"_{isa}" if isa else "") + ("_peers_avx2" if limit_peers else "")
    return record.RESULTS / f"{name}.json"


def _summary(key: str, result: dict[str, Any]) -> str:
    title = ENTRIES[key].title
    if "error" in result:
        return f"  {title:22s} failed: {result['error']}\n"
    return (
        f"  {title:22s} {1e3 * statistics.median(result['seconds']):10.2f} ms"
        f"  (fastest {1e3 * min(result['seconds']):.2f})"
        f"  distortion {statistics.fmean(result['distortion']):.9g}\n"
    )


def _repeatable(options: argparse.Namespace) -> list[str]:
    parts = ["--suite", options.suite, "--shapes", options.shapes]
    parts += ["--threads", str(options.threads)]
    if options.rounds:
        parts += ["--rounds", str(options.rounds)]
    if options.isa:
        parts += ["--isa", options.isa]
    if options.limit_peers:
        parts += ["--limit-peers"]
    if options.peers != "all":
        parts += ["--peers", options.peers]
    return parts


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--suite", required=True, choices=list(SUITES))
    parser.add_argument("--shapes", default="all", help="comma-separated names, or all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, help="end_to_end: seeds 0 to ROUNDS - 1")
    parser.add_argument("--isa", help="hold ddkern to this instruction set (DDKERN_ISA)")
    parser.add_argument(
        "--limit-peers", action="store_true", help="hold the peers to AVX2 where they can be told"
    )
    parser.add_argument(
        "--peers", default="all", help=f"all, or some of {','.join(e.key for e in PEERS)}"
    )
    parser.add_argument("--out", type=Path, help="default: bench/results/SUITE[_ISA].json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
