# SPDX-License-Identifier: Apache-2.0
"""A step of a student, plain and by torch.compile: ``python -m bench.matching.compiled``.

What :class:`ddkern.distill.Unroll` does for a step of a ConvNet-D3: the gradient of its loss on the
way forward, and the derivatives of a product of that gradient on the way back. AOTAutograd does not
differentiate twice, so the compiled form has both derivatives inside, by ``torch.func.grad``. The
two forms take turns. Compilation is counted in seconds of CPU, those of the C++ compiler included,
with an empty cache.
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
from torch.func import functional_call, grad

from bench import record
from ddkern.models import FlatNetwork, make_model

IMAGES = (10, 100)


class Step:
    """Both forms of both halves of a step."""

    def __init__(self) -> None:
        self.model = make_model("convnet-d3", n_classes=10, image_size=32, seed=0)
        self.shapes = {name: p.shape for name, p in self.model.named_parameters()}
        self.sizes = [p.numel() for p in self.model.parameters()]
        self.start = FlatNetwork(self.model).parameters_of(self.model)

    def loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        parts = zip(self.shapes.items(), theta.split_with_sizes(self.sizes), strict=True)
        named = {name: part.view(shape) for (name, shape), part in parts}
        return nn.functional.cross_entropy(functional_call(self.model, named, (x,)), y)

    def forward(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        theta = theta.detach().requires_grad_()
        return torch.autograd.grad(self.loss(theta, x, y), theta)[0]

    def back(self, theta: Tensor, x: Tensor, y: Tensor, q: Tensor) -> tuple[Tensor, ...]:
        theta, x = theta.detach().requires_grad_(), x.detach().requires_grad_()
        (g,) = torch.autograd.grad(self.loss(theta, x, y), theta, create_graph=True)
        return (*torch.autograd.grad((q * g).sum(), (theta, x)), g.detach())

    def forward_in_func(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return grad(self.loss)(theta, x, y)

    def back_in_func(self, theta: Tensor, x: Tensor, y: Tensor, q: Tensor) -> tuple[Tensor, ...]:
        def product(theta: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            g = grad(self.loss)(theta, x, y)
            return (q * g).sum(), g

        derivatives, g = grad(product, argnums=(0, 1), has_aux=True)(theta, x)
        return (*derivatives, g)


def measure(n: int, rounds: int) -> dict[str, Any]:
    """Seconds of both halves in both forms, of the compilation, and how far results are apart."""
    torch.manual_seed(0)
    torch.compiler.reset()
    step = Step()
    x = torch.randn(n, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y, q = torch.arange(n) % 10, 0.01 * torch.randn_like(step.start)
    first, second = (step.start, x, y), (step.start, x, y, q)
    compiled = torch.compile(step.forward_in_func), torch.compile(step.back_in_func)
    begin = _cpu_seconds()
    compiled[0](*first)
    found = compiled[1](*second)
    compilation = _cpu_seconds() - begin
    expected = step.back(*second)
    halves: dict[str, tuple[Callable[..., Any], ...]] = {
        "plain": (step.forward, step.back),
        "compiled": compiled,
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
