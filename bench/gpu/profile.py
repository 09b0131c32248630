# SPDX-License-Identifier: Apache-2.0
"""Where the time of a fit goes, kernel by kernel: ``python -m bench.gpu.profile``.

Wall time and the engine's own phases come from plain runs; the kernels from one more run under
torch's profiler. With ``--out`` the numbers are added to a document of bench/results/gpu/profile.
"""

from __future__ import annotations

import argparse
import cProfile
import datetime as dt
import json
import os
import pstats
import re
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from bench import record
from bench.gpu import clock
from bench.gpu.peers.subject import Subject
from bench.gpu.problem import HUGE, SUITES, make_problem
from bench.gpu.session import smaller

_NOTES = ("n_iter", "mean_iterations", "distortion", "rows_assigned", "rows_rechecked")


def main() -> None:
    options = _parse()
    device = torch.device("cuda", torch.cuda.current_device())
    every = {s.name: s for s in (*SUITES["end_to_end"], *SUITES["lloyd"], HUGE)}
    shape = every[options.shape].fitted(torch.cuda.mem_get_info(device)[0])
    if options.groups:
        shape = smaller(shape, options.groups)
    problem = make_problem(shape, device)
    subject = Subject(options.algorithm)

    def run() -> dict[str, Any]:
        if options.suite == "lloyd":
            return subject.fit_lloyd(problem.x, problem, options.max_iter).notes
        return subject.fit_end_to_end(problem.x, problem, options.max_iter, 0).notes

    found: dict[str, Any] = {"label": shape.label, "suite": options.suite, "calls": []}
    found["command"] = " ".join(["python -m bench.gpu.profile", *sys.argv[1:]])
    for _ in range(options.runs):
        torch.cuda.synchronize()
        start = time.perf_counter()
        notes = run()
        torch.cuda.synchronize()
        call = {"wall_ms": 1e3 * (time.perf_counter() - start)}
        for phase in ("total", "prepare", "seed", "lloyd"):
            call[f"{phase}_ms"] = 1e3 * float(notes[f"seconds_{phase}"])
        found["calls"].append(call)
        print(shape.label, options.suite, {name: round(ms, 1) for name, ms in call.items()})
    found["notes"] = {name: notes[name] for name in (*_NOTES, "rows_exact")}
    print(found["notes"])
    if options.host:
        host = cProfile.Profile()
        host.runcall(run)
        pstats.Stats(host).sort_stats("tottime").print_stats(options.host)
    found["kernels"] = _kernels(run)
    found["kernels_ms"] = sum(kernel["ms"] for kernel in found["kernels"])
    print(f"{found['kernels_ms']:.2f} ms in kernels and copies")
    for kernel in found["kernels"][: options.top]:
        print("{ms:9.2f} ms {launches:6d} x  most {most_us:8.0f} us  {name}".format(**kernel))
    if options.out:
        _add(found, options.out, device)


def _kernels(run: Any) -> list[dict[str, Any]]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    spent: dict[str, list[float]] = defaultdict(list)
    for event in profiler.events():
        name = re.sub(r"ddkern::kmeans::cuda::|\(anonymous namespace\)::|void ", "", event.name)
        spent[re.sub(r"\(.*", "", name)[:70].strip()].append(event.device_time_total)
    return [
        {"name": name, "ms": sum(us) / 1e3, "launches": len(us), "most_us": max(us)}
        for name, us in sorted(spent.items(), key=lambda item: -sum(item[1]))
    ]


def _add(found: dict[str, Any], path: Path, device: torch.device) -> None:
    document = {
        "schema": record.SCHEMA,
        "suite": "profile",
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "commit": os.environ.get("DDKERN_COMMIT"),
        "machine": clock.describe(device),
        "runs": json.loads(path.read_text())["runs"] if path.exists() else [],
    }
    document["runs"].append(found)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.profile", description=__doc__)
    parser.add_argument("--shape", default="latents-k50")
    parser.add_argument("--suite", default="end_to_end", choices=["end_to_end", "lloyd"])
    parser.add_argument("--groups", type=int)
    parser.add_argument("--algorithm", default="auto")
    parser.add_argument("--max-iter", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--top", type=int, default=24, help="kernels shown")
    parser.add_argument("--host", type=int, default=0, help="functions of the host shown")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
