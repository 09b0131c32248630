# SPDX-License-Identifier: Apache-2.0
"""The quantizer and its peers on a GPU: ``python -m bench.kmeans.gpu_peers --suite lloyd``.

``--smoke`` takes tiny shapes, which also run with ``--device cpu``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from bench import record
from bench.gpu.peers import contestants
from bench.gpu.problem import HUGE, SMOKE, SUITES
from bench.gpu.session import Session, failures, smaller, summary, wrong_rows

# How time grows is shown for these.
_SCALING_KEYS = ["torch_fp32", "torch_bf16"]


def main(arguments: list[str] | None = None) -> int:
    """Run one suite or a part of it; 1 where ddkern failed or was wrong."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    device = torch.device(options.device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    every = {s.name: s for s in (SMOKE if options.smoke else SUITES)[options.suite]}
    if options.suite == "lloyd" and options.huge:
        every[HUGE.name] = HUGE
    names = list(every) if options.shapes == "all" else options.shapes.split(",")
    if unknown := [name for name in names if name not in every]:
        raise SystemExit(f"--shapes: {unknown} not in {options.suite}; there are {list(every)}")
    keys = _SCALING_KEYS if options.suite == "scaling" else None
    if options.peers != "all":
        keys = [key for key in options.peers.split(",") if key]
    session = Session(
        options.suite,
        device,
        contestants=contestants(keys),
        rounds=options.rounds,
        budget=options.budget,
        out=options.out or record.RESULTS / "gpu" / f"{options.suite}.json",
        command=_command(options),
        smoke=options.smoke,
        keep_iterations=options.keep_iterations,
    )
    shapes = [every[name] for name in names]
    if options.groups:
        shapes = [smaller(shape, options.groups) for shape in shapes]
    session.run(shapes)
    print("\n".join(summary(session.document)))
    wrong, missing = wrong_rows(session.document), failures(session.document)
    if wrong:
        print(f"ddkern: {wrong} assignments are WRONG")
    if missing:
        print(f"ddkern: no time for {', '.join(missing)}")
    return 1 if wrong or missing or not session.document["lines"] else 0


def _command(options: argparse.Namespace) -> str:
    parts = ["python -m bench.kmeans.gpu_peers --suite", options.suite]
    parts += ["--shapes", options.shapes] if options.shapes != "all" else []
    parts += ["--peers", options.peers] if options.peers != "all" else []
    parts += ["--groups", str(options.groups)] if options.groups else []
    parts += ["--rounds", str(options.rounds)]
    parts += ["--huge"] if options.huge else []
    parts += ["--keep-iterations"] if options.keep_iterations else []
    parts += ["--smoke"] if options.smoke else []
    parts += ["--device", options.device] if options.device != "cuda" else []
    return " ".join(parts)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.kmeans.gpu_peers", description=__doc__)
    parser.add_argument("--suite", required=True, choices=list(SUITES))
    parser.add_argument("--shapes", default="all", help="comma-separated names, or all")
    parser.add_argument(
        "--peers",
        default="all",
        help="all (the default), or some of "
        + ",".join(c.key for c in contestants(["ddkern_streaming", "ddkern_gram"])[1:])
        + ","
        + ",".join(c.key for c in contestants()[1:]),
    )
    parser.add_argument("--groups", type=int, help="at most this many groups a line")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=1e9, help="seconds; later lines are left")
    parser.add_argument("--huge", action="store_true", help="lloyd: also 1e7 x 256, k=16384")
    parser.add_argument(
        "--keep-iterations",
        action="store_true",
        help="lloyd, scaling: all iterations of a shape, also where ddkern converges in fewer",
    )
    parser.add_argument("--smoke", action="store_true", help="tiny shapes")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="default: bench/results/gpu/SUITE.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
