# SPDX-License-Identifier: Apache-2.0
"""An evaluation by ddkern against the loop of the literature: ``python -m bench.evaluation.speed``.

The baseline is that loop written anew, as the repositories descended from DC have it: a
``DataLoader`` over a ``TensorDataset``, float32, maps with the channels first, an augmentation of
its own that draws from torch's generator, the optimiser made anew for the lower rate, and a
``DataLoader`` over the test images. Both get the same sets, the same network and the same numbers
of epochs. Epochs are timed in turns; accuracies come from whole runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from bench import record
from ddkern.data import DistilledSet, ImageDataset, Normalization, open_dataset
from ddkern.distill import distill, make_method
from ddkern.evaluate import plan_evaluation, run_plan
from ddkern.models import make_model
from ddkern.training import measure_accuracy, train

_OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")


def main(arguments: list[str] | None = None) -> int:
    """Time both loops in turns, then let both train to the end, and write what was found."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    place = os.environ.get("DDKERN_CIFAR10")
    if place is None:
        raise SystemExit("DDKERN_CIFAR10 is not set: the folder with the parquet files of CIFAR-10")
    train_images, test = (open_dataset(place, split=split).load() for split in ("train", "test"))
    normalization = Normalization.published("cifar10")
    command = f"python -m bench.evaluation.speed --ipc {options.ipc} --networks {options.networks}"
    document = record.new("evaluation", options.threads, command)
    document["versions"] = {"torch": torch.__version__, "numpy": np.__version__}
    drawn = distill(
        train_images,
        make_method("random", ipc=options.ipc),
        normalization=normalization,
        random_state=0,
    )
    line = {"name": f"random-{options.ipc}@E1-dsa", **_times(drawn, test, options)}
    document["lines"] = [line]
    out = record.RESULTS / "evaluation" / f"speed-{options.ipc}.json"
    record.write(document, out)
    print(line)
    if options.networks:
        line |= _accuracies(train_images, test, normalization, options)
        record.write(document, out)
        print(line)
    return 0


def _times(drawn: DistilledSet, test: ImageDataset, options: argparse.Namespace) -> dict[str, Any]:
    """Medians over rounds of the seconds of ten epochs, and of testing once, of both loops."""
    seconds: dict[str, list[float]] = {}

    def timed(name: str, work: Any) -> None:
        start = time.perf_counter()
        work()
        seconds.setdefault(name, []).append(time.perf_counter() - start)

    plans = {
        precision: plan_evaluation(drawn, test, "E1-dsa", n_networks=1, precision=precision)
        for precision in ("float32", "bfloat16")
    }
    loader = _test_loader(test, drawn.normalization)
    for _ in range(options.rounds + 1):  # the first one warms up
        plain = make_model("convnet-d3", n_classes=10, image_size=32, seed=0)
        timed("reference_train", lambda net=plain: reference_train(net, drawn, 10, 0.01))
        timed("reference_test", lambda net=plain: reference_test(net, loader))
        for precision, plan in plans.items():
            recipe = replace(plan.recipe, epochs=10)
            net, data = plan.make_network(0), plan.training_set()
            images, labels = plan.test_images()
            timed(
                f"{precision}_train",
                lambda n=net, d=data, r=recipe, p=precision: train(n, d, r, seed=0, precision=p),
            )
            timed(
                f"{precision}_test",
                lambda n=net, i=images, t=labels, p=precision: measure_accuracy(n, i, t, p),
            )
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    epochs = plans["float32"].recipe.epochs
    totals = {
        name: medians[f"{name}_train"] / 10 * epochs + medians[f"{name}_test"]
        for name in ("reference", "float32", "bfloat16")
    }
    return {
        "rounds": options.rounds,
        "seconds_of_10_epochs_and_a_test": medians,
        "seconds_of_a_run": totals,
        "ratio_float32": totals["reference"] / totals["float32"],
        "ratio_bfloat16": totals["reference"] / totals["bfloat16"],
    }


def _accuracies(
    source: ImageDataset,
    test: ImageDataset,
    normalization: Normalization,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Whole runs of E1-dsa by all three, each set of its own with a network of its own."""
    found: dict[str, list[float]] = {"reference": [], "float32": [], "bfloat16": []}
    loader = _test_loader(test, normalization)
    method = make_method("random", ipc=options.ipc)
    for seed in range(options.networks):
        drawn = distill(source, method, normalization=normalization, random_state=seed)
        for precision in ("float32", "bfloat16"):
            plan = plan_evaluation(
                drawn, test, "E1-dsa", n_networks=1, random_state=seed, precision=precision
            )
            found[precision].append(run_plan(plan).mean)
        net = make_model("convnet-d3", n_classes=10, image_size=32, seed=plan.seeds[0])
        torch.manual_seed(seed)
        reference_train(net, drawn, 1001, 0.01)
        found["reference"].append(reference_test(net, loader))
        print({name: [round(100 * a, 2) for a in values] for name, values in found.items()})
        sys.stdout.flush()
    return {"accuracies": found}


def reference_train(net: nn.Module, drawn: DistilledSet, epochs: int, lr: float) -> None:
    """Train as evaluate_synset does."""
    data = TensorDataset(torch.tensor(drawn.inputs()), torch.tensor(drawn.labels))
    loader = DataLoader(data, batch_size=256, shuffle=True, num_workers=0)
    criterion = nn.CrossEntropyLoss()

    def make(rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)

    optimizer = make(lr)
    net.train()
    for epoch in range(epochs):
        for images, labels in loader:
            loss = criterion(net(reference_augment(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch == 501:
            optimizer = make(0.1 * lr)


def reference_test(net: nn.Module, loader: Any) -> float:
    """Test as the literature's ``epoch("test", ...)`` does."""
    net.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += int((net(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def reference_augment(images: Tensor) -> Tensor:
    """One random operation of DSA for the batch, with parameters for each image."""
    n, _, height, width = images.shape
    name = _OPERATIONS[int(torch.randint(6, ()))]
    if name == "flip":
        return torch.where((torch.rand(n) < 0.5)[:, None, None, None], images.flip(3), images)
    if name == "color":
        u = torch.rand(3, n, 1, 1, 1)
        images = images + (u[0] - 0.5)
        mean = images.mean(1, keepdim=True)
        images = (images - mean) * 2 * u[1] + mean
        mean = images.mean((1, 2, 3), keepdim=True)
        return (images - mean) * (u[2] + 0.5) + mean
    if name == "crop":
        shift = torch.randint(-4, 5, (2, n, 1, 1))
        padded = functional.pad(images, (1, 1, 1, 1))
        rows = (torch.arange(height)[None, :, None] + shift[0] + 1).clamp(0, height + 1)
        columns = (torch.arange(width)[None, None, :] + shift[1] + 1).clamp(0, width + 1)
        index = torch.arange(n)[:, None, None]
        return padded.permute(0, 2, 3, 1)[index, rows, columns].permute(0, 3, 1, 2).contiguous()
    if name == "cutout":
        size = 16
        centre = torch.randint(0, height + 1, (2, n, 1))
        line = torch.arange(height)[None]
        inside = [(line >= c - size // 2) & (line < c + size // 2) for c in centre]
        return images * ~(inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    theta = torch.zeros(n, 2, 3)
    if name == "scale":
        factors = torch.rand(2, n) * (1.2 - 1 / 1.2) + 1 / 1.2
        theta[:, 0, 0], theta[:, 1, 1] = factors
    else:
        angle = (torch.rand(n) - 0.5) * 2 * 15 / 180 * float(np.pi)
        theta[:, 0, 0], theta[:, 0, 1] = angle.cos(), -angle.sin()
        theta[:, 1, 0], theta[:, 1, 1] = angle.sin(), angle.cos()
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _test_loader(test: ImageDataset, normalization: Normalization) -> Any:
    data = TensorDataset(
        torch.tensor(normalization.apply(test.images())), torch.tensor(test.labels)
    )
    return DataLoader(data, batch_size=256, shuffle=False, num_workers=0)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation.speed", description=__doc__)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", type=int, default=0, help="whole runs for the accuracies")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
