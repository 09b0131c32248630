# SPDX-License-Identifier: Apache-2.0
"""A step of a student, plain and by torch.compile: ``python -m bench.matching.compiled``.

What :class:`ddkern.distill.Unroll` does for a step of a ConvNet-D3: the gradient of its loss on the
way forward, and the derivatives of a product of that gradient on the way back. AOTAutograd does not
differentiate twice, so the compiled form has both derivatives inside, by ``torch.func.grad``
(:class:`ddkern.distill.compiled_steps.CompiledSteps`). The two forms take turns. Compilation is
counted in seconds of CPU, those of the C++ compiler included, with an empty cache.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import record
from ddkern.distill.compiled_steps import CompiledSteps
from ddkern.models import FlatNetwork, make_model

IMAGES = (10, 100)


class Step:
    """Both halves of a step, plain; :class:`CompiledSteps` has them compiled."""

    def __init__(self) -> None:
        model = make_model("convnet-d3", n_classes=10, image_size=32, seed=0)
        self.network = FlatNetwork(model)
        self.start = self.network.parameters_of(model)

    def gradient(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        theta = theta.detach().requires_grad_()
        return torch.autograd.grad(self._loss(theta, x, y), theta)[0]

    def back(
        self, theta: Tensor, x: Tensor, y: Tensor, q: Tensor, _: tuple[int, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        theta, x = theta.detach().requires_grad_(), x.detach().requires_grad_()
        (g,) = torch.autograd.grad(self._loss(theta, x, y), theta, create_graph=True)
        return g.detach(), torch.autograd.grad((q * g).sum(), (theta, x))

    def _loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.network(theta, x), y)


def measure(n: int, rounds: int) -> dict[str, Any]:
    """Seconds of both halves in both forms, of the compilation, and how far results are apart."""
    torch.manual_seed(0)
    torch.compiler.reset()
    step = Step()
    x = torch.randn(n, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y, q = torch.arange(n) % 10, 0.01 * torch.randn_like(step.start)
    first, second = (step.start, x, y), (step.start, x, y, q, (0, 1))
    compiled = CompiledSteps(step.network, nn.functional.cross_entropy, "float32")
    begin = _cpu_seconds()
    compiled.gradient(*first)
    gradient, derivatives = compiled.back(*second)
    compilation = _cpu_seconds() - begin
    found = gradient, *derivatives
    gradient, derivatives = step.back(*second)
    expected = gradient, *derivatives
    halves: dict[str, tuple[Callable[..., Any], ...]] = {
        "plain": (step.gradient, step.back),
        "compiled": (compiled.gradient, compiled.back),
    }
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in halves}
    for _ in range(rounds):
        for half, arguments in enumerate((first, second)):
            for name, functions in halves.items():
                begin = time.perf_counter()
                functions[half](*arguments)
                seconds[name][half].append(time.perf_counter() - begin)
    return {
        "images": n,
        "compilation": compilation,
        "seconds": {name: [statistics.median(t) for t in s] for name, s in seconds.items()},
        "difference": max(
            float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)
        ),
    }


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main(arguments: list[str] | None = None) -> int:
    """Measure the lines, writing the document after each."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    command = f"python -m bench.matching.compiled --rounds {options.rounds}"
    document = record.new("matching_compiled", options.threads, command)
    document["versions"] = {"torch": torch.__version__}
    with tempfile.TemporaryDirectory(prefix="ddkern-") as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        # In this process and its children, where the time is seen.
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        for n in IMAGES:
            found = measure(n, options.rounds)
            if found["difference"] > 0.05:
                raise SystemExit(f"the compiled step has other results: {found}")
            print(found, flush=True)
            document["lines"].append(found)
            record.write(document, options.out / "compiled.json")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.matching.compiled")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "matching")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
