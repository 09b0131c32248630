# SPDX-License-Identifier: Apache-2.0
"""Gradients through steps of SGD, and a stored graph: ``python -m bench.matching.unroll``.

A ConvNet-D3 is trained for some steps on a set of random images, and the gradient of where it ends
is taken with respect to images and learning rate. Each measurement is a process of its own: its
largest size beyond what it had before, and the seconds of the second of two gradients. Gradients
are compared before anything is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import record
from ddkern.augment import DSA, DrawKey
from ddkern.distill.unroll import Unroll
from ddkern.models import FlatNetwork, make_model

# Steps, images a step, images in the set, what takes them.
LINES = (
    (10, 100, 100, ("exact", "stored graph")),
    (30, 100, 100, ("exact", "stored graph")),
)
# Images a step, the steps of MTT and DATM for CIFAR-100 with 10 images a class, of which some are
# taken (the others only add their parameters), and the images that go through the network at once.
# No stored graph of this size fits here.
LARGE, LARGE_STEPS = ((500, 30, None), (1000, 80, None), (1000, 80, 250)), 4


def stored_graph(
    model: nn.Module,
    batches: list[Tensor],
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    lr: Tensor,
) -> Tensor:
    """The distance with the graph of all steps, as MTT's code has it."""
    network, theta = FlatNetwork(model), start
    for step, rows in enumerate(batches):
        # The layout that Unroll takes too: another one rounds otherwise, and a value on the other
        # side of a ReLU's corner changes the gradient by more than rounding.
        inputs = augment(images[rows], step).contiguous(memory_format=torch.channels_last)
        loss = nn.functional.cross_entropy(network(theta, inputs), labels[rows])
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta = theta - lr * gradient
    return (theta - target).square().sum() / (start - target).square().sum()


def augment(images: Tensor, step: int) -> Tensor:
    """Return DSA's draw for this step."""
    return DSA()(images, DrawKey(seed=0, iteration=0, step=step))


def measure(
    how: str,
    steps: int,
    batch: int,
    images_in_set: int,
    threads: int,
    rounds: int = 2,
    micro_batch: int | None = None,
) -> dict[str, Any]:
    """Seconds and bytes of a gradient, and the gradient, in this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = make_model("convnet-d3", n_classes=10, image_size=32, in_channels=3, seed=0)
    start = FlatNetwork(model).parameters_of(model)
    target = start + 0.02 * torch.randn_like(start)
    images = torch.randn(images_in_set, 3, 32, 32, requires_grad=True)
    labels = torch.arange(images_in_set) % 10
    lr = torch.tensor(0.01, requires_grad=True)
    batches = [torch.randperm(images_in_set)[:batch] for _ in range(steps)]
    if how == "stored graph":
        start.requires_grad_()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        if how == "stored graph":
            loss = stored_graph(model, batches, start, target, images, labels, lr)
        else:
            unroll = Unroll(
                model=model,
                batches=batches,
                augment=augment,
                gradient=how,
                micro_batch=micro_batch,
            )
            loss = unroll.distance(start, target, images, labels, lr)
        gradients = torch.autograd.grad(loss, (images, lr))
        seconds.append(time.perf_counter() - begin)
        del loss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds[-1],
        "bytes": 1024 * (peak - before),
        "n_parameters": len(start),
        "gradients": [gradient.detach() for gradient in gradients],
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure the lines, writing the document after each."""
    options = _parse(arguments)
    if options.child:
        *task, path = json.loads(options.child)
        how, steps, batch, images, rounds, micro_batch = task
        found = measure(how, steps, batch, images, options.threads, rounds, micro_batch)
        torch.save(found, path)
        return 0
    if options.large:
        _measure_large(options)
        return 0
    document = record.new("matching_unroll", options.threads, "python -m bench.matching.unroll")
    document["versions"] = {"torch": torch.__version__}
    for steps, batch, images, contestants in LINES:
        line: dict[str, Any] = {"steps": steps, "batch": batch, "images": images, "results": {}}
        exact = None
        for how in contestants:
            found = _in_child(how, steps, batch, images, options.threads)
            if found is None:
                line["results"][how] = {"killed": True}
                continue
            gradients, _ = found.pop("gradients"), found.pop("n_parameters")
            if how == "exact":
                exact = gradients
            if exact is not None:
                found["difference"] = [
                    float((a - b).norm() / b.norm()) for a, b in zip(gradients, exact, strict=True)
                ]
            # In float32 some value lies on the other side of a ReLU's corner, which changes the
            # gradient by a percent; tests compare in float64, to 1e-9.
            if how == "stored graph" and max(found["difference"]) > 0.05:
                raise SystemExit(f"the stored graph gives another gradient: {found}")
            line["results"][how] = found
            print(steps, batch, how, found)
            sys.stdout.flush()
        document["lines"].append(line)
        record.write(document, options.out / "unroll.json")
    return 0


def _measure_large(options: argparse.Namespace) -> None:
    """Measure some steps of the shapes that no stored graph fits."""
    command = "python -m bench.matching.unroll --large"
    document = record.new("matching_unroll_large", options.threads, command)
    document["versions"] = {"torch": torch.__version__}
    for batch, steps, micro_batch in LARGE:
        found = _in_child(
            "exact",
            LARGE_STEPS,
            batch,
            batch,
            options.threads,
            rounds=1,
            micro_batch=micro_batch,
        )
        if found is None:
            raise SystemExit(f"{LARGE_STEPS} steps of {batch} images ended with an error")
        line = {"batch": batch, "all_steps": steps, "steps": LARGE_STEPS}
        line["at_once"] = micro_batch or batch
        line |= {name: found[name] for name in ("seconds", "bytes")}
        # Kept for the way back after every step.
        line["bytes_a_step"] = 4 * found["n_parameters"]
        print(line, flush=True)
        document["lines"].append(line)
        record.write(document, options.out / "unroll_large.json")


def _in_child(
    how: str,
    steps: int,
    batch: int,
    images: int,
    threads: int,
    rounds: int = 2,
    micro_batch: int | None = None,
) -> Any:
    with tempfile.TemporaryDirectory(prefix="ddkern-") as folder:
        path = Path(folder) / "found.pt"
        child = json.dumps([how, steps, batch, images, rounds, micro_batch, str(path)])
        command = [sys.executable, "-m", "bench.matching.unroll", "--child", child]
        done = subprocess.run([*command, "--threads", str(threads)], check=False)
        return torch.load(path, weights_only=True) if done.returncode == 0 else None


def _parse(arguments: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m bench.matching.unroll")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=record.RESULTS / "matching")
    parser.add_argument("--large", action="store_true", help="the shapes of CIFAR-100 alone")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
