# SPDX-License-Identifier: Apache-2.0
"""The distance of trajectory matching, forward and backward: ``python -m bench.matching.distance``.

Contestants take turns within a round; times are medians over the rounds. Nothing is reported where
values or gradients differ.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench import record
from ddkern.losses import trajectory_distance

# Parameters of a ConvNet-D3, a ResNet-18 and a ViT-B.
SIZES = {"0.32 M": 320_010, "11 M": 11_173_962, "86 M": 85_806_346}

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]


def eager(student: Tensor, target: Tensor, start: Tensor) -> Tensor:
    """As the systems of the field write it."""
    distance = functional.mse_loss(student, target, reduction="sum")
    return distance / functional.mse_loss(start, target, reduction="sum")


def foreach(student: Tensor, target: Tensor, start: Tensor) -> Tensor:
    """By torch's operations on lists of tensors."""
    parts = [list(x.chunk(8)) for x in (student, target, start)]
    to_target = torch._foreach_norm(torch._foreach_sub(parts[0], parts[1]), 2)
    of_start = torch._foreach_norm(torch._foreach_sub(parts[2], parts[1]), 2)
    return torch.stack(to_target).square().sum() / torch.stack(of_start).square().sum()


def main(arguments: list[str] | None = None) -> int:
    """Measure every size, writing the document after each."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    contestants: dict[str, Distance] = {
        "ddkern": trajectory_distance,
        "torch": eager,
        "torch._foreach": foreach,
    }
    document = record.new(
        "matching_distance",
        options.threads,
        f"python -m bench.matching.distance --rounds {options.rounds}",
    )
    document["versions"] = {"torch": torch.__version__}
    try:
        compiled: Distance = torch.compile(eager, fullgraph=True)
        compiled(*(torch.ones(3) for _ in range(3)))
        contestants["torch.compile"] = compiled
    except Exception as error:  # noqa: BLE001  # whatever its compiler lacks here
        document["absent"]["torch.compile"] = str(error).splitlines()[0]
    for title, size in SIZES.items():
        generator = torch.Generator().manual_seed(0)
        vectors = [torch.randn(size, generator=generator) for _ in range(3)]
        seconds = _compare(contestants, vectors, options.rounds, options.seconds)
        found = {name: statistics.median(times) for name, times in seconds.items()}
        bandwidth = _read_bandwidth(vectors)
        line = {"title": title, "size": size, "seconds": seconds, "bytes_per_second": bandwidth}
        document["lines"].append(line)
        record.write(document, options.out / "distance.json")
        # Three vectors are read forward, two backward, and one is written.
        moved = 6 * 4 * size / found["ddkern"] / bandwidth
        ratios = {name: f"{value / found['ddkern']:.2f}x" for name, value in found.items()}
        print(
            f"{title}: {1e3 * found['ddkern']:.3f} ms, {ratios}, {100 * moved:.0f} % of bandwidth"
        )
        sys.stdout.flush()
    return 0


def _compare(
    contestants: dict[str, Distance], vectors: list[Tensor], rounds: int, least: float
) -> dict[str, list[float]]:
    student, target, start = vectors
    student.requires_grad_()
    expected: tuple[float, Tensor] | None = None
    repeats = {}
    for name, distance in contestants.items():
        value = distance(student, target, start)
        (gradient,) = torch.autograd.grad(value, student)
        if expected is None:
            expected = float(value.detach()), gradient
        torch.testing.assert_close(float(value.detach()), expected[0], rtol=1e-5, atol=0)
        torch.testing.assert_close(gradient, expected[1], rtol=1e-4, atol=1e-9)
        repeats[name] = max(1, int(least / max(1e-6, _once(distance, student, target, start, 1))))
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, distance in contestants.items():
            seconds[name].append(_once(distance, student, target, start, repeats[name]))
    return seconds


def _once(distance: Distance, student: Tensor, target: Tensor, start: Tensor, count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        torch.autograd.grad(distance(student, target, start), student)
    return (time.perf_counter() - begin) / count


def _read_bandwidth(vectors: list[Tensor]) -> float:
    """Bytes a second of the best of some plain sums over the same vectors."""
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        for vector in vectors:
            vector.detach().sum()
        best = min(best, time.perf_counter() - begin)
    return sum(4 * len(vector) for vector in vectors) / best


def _parse(arguments: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m bench.matching.distance")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="a contestant and round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=record.RESULTS / "matching")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
