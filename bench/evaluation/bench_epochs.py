# SPDX-License-Identifier: Apache-2.0
"""Ten epochs of E1-dsa on a set of 100 images: the loop of the literature, and ddkern's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.evaluation.speed import reference_train
from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.data.dataset import ArrayImages
from ddkern.evaluate import plan_evaluation
from ddkern.models import make_model
from ddkern.training import train

EPOCHS = 10


def noise(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of noise: times do not hang on what is seen."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 3, 32, 32), np.uint8), np.arange(n) % 10


@pytest.mark.parametrize("by", ["reference", "float32", "bfloat16"])
def bench_epochs(benchmark: Any, request: pytest.FixtureRequest, by: str) -> None:
    """Time ten epochs; the network is new in every round."""
    torch.set_num_threads(request.config.getoption("--bench-threads"))
    images, labels = noise(100)
    distilled = DistilledSet(images, labels, normalization=Normalization.published("cifar10"))
    benchmark.group = "100 images, E1-dsa, 10 epochs"
    if by == "reference":

        def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
            net = make_model("convnet-d3", n_classes=10, image_size=32, seed=0)
            return (net, distilled, EPOCHS, 0.01), {}

        benchmark.pedantic(reference_train, setup=fresh, rounds=5, warmup_rounds=1)
        return
    pixels, test_labels = noise(10)
    names = distilled.class_names
    source = ArrayImages(pixels, "noise")
    test = ImageDataset("noise", "test", source, np.arange(10), test_labels, names, (3, 32, 32))
    plan = plan_evaluation(distilled, test, "E1-dsa", n_networks=1, precision=by)
    recipe, data = replace(plan.recipe, epochs=EPOCHS), plan.training_set()

    def made() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (plan.make_network(0), data, recipe), {"seed": 0, "precision": plan.precision}

    benchmark.pedantic(train, setup=made, rounds=5, warmup_rounds=1)
