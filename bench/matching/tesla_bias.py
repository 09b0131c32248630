# SPDX-License-Identifier: Apache-2.0
"""How far TESLA's gradient is from the exact one: ``python -m bench.matching.tesla_bias``.

An expert (ConvNet-D3, SGD, batches of 256, DSA, as MTT trains it) learns CIFAR-10; a student starts
from one of its epochs and should come to a later one by steps on real images, at several learning
rates. Compared are the derivatives with respect to the images and to the learning rate.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import record
from bench.evaluation.anchors import open_splits
from bench.matching.unroll import augment
from ddkern.augment import DSA
from ddkern.distill import Random, distill
from ddkern.distill.unroll import Unroll
from ddkern.models import FlatNetwork, accelerate, make_model
from ddkern.training import Decay, Optimizer, PixelImages, Recipe, TrainingSet, choose_precision
from ddkern.training import train as train_network
from ddkern.training.images import one_hot

EXPERT = Recipe(
    epochs=2,
    batch_size=256,
    optimizer=Optimizer(name="sgd", lr=0.01, momentum=0.0, weight_decay=0.0),
    decay=Decay(kind="constant"),
    augment=(DSA(),),
)
# Images a class and steps, as MTT has them for CIFAR-10, and learning rates around those that it
# learns.
LINES = ((1, 50, (0.001, 0.01, 0.02, 0.05)), (10, 30, (0.001, 0.01, 0.05)))


def main(arguments: list[str] | None = None) -> int:
    """Train the expert, compare the gradients, write the document."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    dataset, _, normalization = open_splits("cifar10")
    device = torch.device("cpu")
    model = make_model("convnet-d3", n_classes=10, image_size=32, in_channels=3, seed=0)
    network = FlatNetwork(model)
    epochs = [network.parameters_of(model)]
    data = TrainingSet(
        PixelImages.of_dataset(dataset, normalization, device),
        one_hot(torch.from_numpy(dataset.labels), 10),
        torch.ones(len(dataset)),
    )
    precision = choose_precision("auto", device)
    train_network(
        accelerate(model),
        data,
        EXPERT,
        seed=0,
        precision=precision,
        on_epoch=lambda _: epochs.append(network.parameters_of(model)),
    )
    document = record.new("matching_tesla", options.threads, "python -m bench.matching.tesla_bias")
    document["versions"] = {"torch": torch.__version__}
    document["expert"] = {"epochs": EXPERT.epochs, "precision": precision}
    for ipc, steps, rates in LINES:
        drawn = distill(dataset, Random(ipc=ipc), normalization=normalization, random_state=0)
        images = torch.from_numpy(np.array(drawn.inputs()))
        labels = torch.from_numpy(np.array(drawn.labels))
        batches = [torch.arange(len(images))] * steps
        for rate in rates:
            exact, tesla = (
                _gradients(
                    Unroll(model=model, batches=batches, augment=augment, gradient=gradient),
                    (epochs[0], epochs[2]),
                    images,
                    labels,
                    rate,
                )
                for gradient in ("exact", "tesla")
            )
            line = {
                "ipc": ipc,
                "steps": steps,
                "lr": rate,
                "distance": exact[0],
                "error": float((tesla[1] - exact[1]).norm() / exact[1].norm()),
                "cosine": float(torch.cosine_similarity(tesla[1].ravel(), exact[1].ravel(), 0)),
                "lr_gradient": [exact[2], tesla[2]],
            }
            document["lines"].append(line)
            record.write(document, options.out / "tesla.json")
            print(line)
            sys.stdout.flush()
    return 0


def _gradients(
    unroll: Unroll, ends: tuple[Tensor, Tensor], images: Tensor, labels: Tensor, rate: float
) -> tuple[float, Tensor, float]:
    x = images.clone().requires_grad_()
    lr = torch.tensor(rate, requires_grad=True)
    loss = unroll.distance(*ends, x, labels, lr)
    of_images, of_lr = torch.autograd.grad(loss, (x, lr))
    return float(loss.detach()), of_images, float(of_lr)


def _parse(arguments: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m bench.matching.tesla_bias")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=record.RESULTS / "matching")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
