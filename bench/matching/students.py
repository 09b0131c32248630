# SPDX-License-Identifier: Apache-2.0
"""Students at once or one after the other: ``python -m bench.matching.students``.

The gradient of the distances of several students, ConvNet-D3s that learn from one set of random
images, through some steps with DSA: with one student in the network at a time, and with all of them
as one computation of ``torch.func.vmap``. Both take turns; gradients are compared first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import record
from bench.matching.unroll import augment
from ddkern.distill.unroll import Unroll
from ddkern.models import FlatNetwork, make_model

# Students, images of the set, all of which a step takes, channels of the network.
LINES = ((2, 10, 128), (4, 10, 128), (2, 100, 128), (4, 10, 32))
STEPS = 3


def measure(students: int, n: int, width: int, rounds: int) -> dict[str, Any]:
    """Seconds of a gradient each way, and how far the two gradients are apart."""
    torch.manual_seed(0)
    model = make_model("convnet-d3", n_classes=10, image_size=32, width=width, seed=0)
    theta = FlatNetwork(model).parameters_of(model)
    starts = theta + 0.02 * torch.randn(students, len(theta))
    targets = starts + 0.02 * torch.randn_like(starts)
    images = torch.randn(n, 3, 32, 32, requires_grad=True)
    labels = torch.arange(n) % 10
    ways = {"one by one": 1, "at once": students}
    gradients: dict[str, Tensor] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first one warms up
        for name, at_once in ways.items():
            unroll = Unroll(
                model=model,
                batches=[torch.arange(n)] * STEPS,
                augment=augment,
                at_once=at_once,
            )
            begin = time.perf_counter()
            loss = unroll.distance(starts, targets, images, labels, 0.01).mean()
            (gradients[name],) = torch.autograd.grad(loss, images)
            seconds[name].append(time.perf_counter() - begin)
    one, all_at_once = gradients.values()
    return {
        "students": students,
        "images": n,
        "width": width,
        "seconds": {name: statistics.median(values[1:]) for name, values in seconds.items()},
        "difference": float((one - all_at_once).norm() / one.norm()),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure the lines, writing the document after each."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    command = f"python -m bench.matching.students --rounds {options.rounds}"
    document = record.new("matching_students", options.threads, command)
    document["versions"] = {"torch": torch.__version__}
    document["steps"] = STEPS
    for line in LINES:
        found = measure(*line, options.rounds)
        if found["difference"] > 0.05:
            raise SystemExit(f"students at once have another gradient: {found}")
        print(found, flush=True)
        document["lines"].append(found)
        record.write(document, options.out / "students.json")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.matching.students")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "matching")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
