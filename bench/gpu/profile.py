# SPDX-License-Identifier: Apache-2.0
"""Where the time of a fit goes, kernel by kernel: ``python -m bench.gpu.profile``.

Wall time and the engine's own phases come from plain runs; the kernels from one more run under
torch's profiler.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import re
import time
from collections import defaultdict

import torch

from bench.gpu.peers.subject import Subject
from bench.gpu.problem import HUGE, SUITES, make_problem
from bench.gpu.session import smaller


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.profile", description=__doc__)
    parser.add_argument("--shape", default="latents-k50")
    parser.add_argument("--suite", default="end_to_end", choices=["end_to_end", "lloyd"])
    parser.add_argument("--groups", type=int)
    parser.add_argument("--algorithm", default="auto")
    parser.add_argument("--max-iter", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--top", type=int, default=24, help="kernels shown")
    parser.add_argument("--host", type=int, default=0, help="functions of the host shown")
    options = parser.parse_args()
    device = torch.device("cuda", torch.cuda.current_device())
    every = {s.name: s for s in (*SUITES["end_to_end"], *SUITES["lloyd"], HUGE)}
    shape = every[options.shape].fitted(torch.cuda.mem_get_info(device)[0])
    if options.groups:
        shape = smaller(shape, options.groups)
    problem = make_problem(shape, device)
    subject = Subject(options.algorithm)

    def run() -> dict[str, object]:
        if options.suite == "lloyd":
            return subject.fit_lloyd(problem.x, problem, options.max_iter).notes
        return subject.fit_end_to_end(problem.x, problem, options.max_iter, 0).notes

    for _ in range(options.runs):
        torch.cuda.synchronize()
        start = time.perf_counter()
        notes = run()
        torch.cuda.synchronize()
        wall = time.perf_counter() - start
        phases = " ".join(
            f"{name[8:]} {1e3 * float(notes[name]):.1f}"  # type: ignore[arg-type]
            for name in ("seconds_prepare", "seconds_seed", "seconds_lloyd")
        )
        total = 1e3 * float(notes["seconds_total"])  # type: ignore[arg-type]
        print(
            f"{shape.label} {options.suite}: {1e3 * wall:.1f} ms wall; {total:.1f} call; {phases}"
        )
    print({k: v for k, v in notes.items() if not k.startswith("seconds")})
    if options.host:
        host = cProfile.Profile()
        host.runcall(run)
        pstats.Stats(host).sort_stats("tottime").print_stats(options.host)
    if options.top == 0:
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    spent: dict[str, list[float]] = defaultdict(list)
    for event in profiler.events():
        name = re.sub(r"ddkern::kmeans::cuda::|\(anonymous namespace\)::|void ", "", event.name)
        spent[re.sub(r"\(.*", "", name)[:70]].append(event.device_time_total)
    total = sum(map(sum, spent.values()))
    print(f"{total / 1e3:.2f} ms in kernels and copies")
    for name, times in sorted(spent.items(), key=lambda item: -sum(item[1]))[: options.top]:
        print(f"{sum(times) / 1e3:9.2f} ms {len(times):6d} x  most {max(times):8.0f} us  {name}")


if __name__ == "__main__":
    main()
