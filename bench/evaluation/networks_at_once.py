# SPDX-License-Identifier: Apache-2.0
"""Several networks at once or one after the other: ``python -m bench.evaluation.networks_at_once``.

A step of SGD of n ConvNets on the same images: as :func:`ddkern.training.train` takes it, network
after network, and as one step of ``torch.func.vmap`` over the stacked parameters. Both in float32,
which vmap needs, and one after the other in bfloat16 as well.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

from bench import record
from ddkern.models import accelerate, make_model


def main(arguments: list[str] | None = None) -> int:
    """Time both at each batch size, in turns, and write what was found."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    document = record.new(
        "networks_at_once", options.threads, "python -m bench.evaluation.networks_at_once"
    )
    for batch in options.batches:
        images = torch.randn(batch, 3, 32, 32)
        labels = torch.arange(batch) % 10
        networks = [
            make_model("convnet-d3", n_classes=10, image_size=32, seed=seed)
            for seed in range(options.networks)
        ]
        ways = {
            "at once": _at_once(networks, images, labels),
            "in turn": _in_turn(networks, images, labels, bfloat16=False),
            "in turn, bfloat16": _in_turn(networks, images, labels, bfloat16=True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds + 1):  # the first one warms up
            for name, step in ways.items():
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
        document["lines"].append(
            {"batch": batch, "networks": options.networks, "seconds_of_a_step": medians}
        )
        record.write(document, options.out / "networks-at-once.json")
        print(batch, {name: f"{1e3 * value:.1f} ms" for name, value in medians.items()})
    return 0


def _at_once(networks: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    parameters: Any
    parameters, buffers = stack_module_state(networks)  # type: ignore[arg-type]
    skeleton = copy.deepcopy(networks[0]).to("meta")

    def loss(weights: Any, state: Any) -> Tensor:
        logits = functional_call(skeleton, (weights, state), (images,))
        return functional.cross_entropy(logits, labels)

    gradients = vmap(grad(loss))

    def step() -> None:
        found = gradients(parameters, buffers)
        with torch.no_grad():
            for name, weight in parameters.items():
                weight.sub_(found[name], alpha=0.01)

    return step


def _in_turn(
    networks: list[nn.Module], images: Tensor, labels: Tensor, *, bfloat16: bool
) -> Callable[[], None]:
    own = [accelerate(copy.deepcopy(network)) for network in networks]
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.01) for network in own]
    inputs = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        for network, optimizer in zip(own, optimizers, strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = network(inputs)
            loss = functional.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation.networks_at_once")
    parser.add_argument("--batches", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "evaluation")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
