# SPDX-License-Identifier: Apache-2.0
"""DM and DC: an iteration is what the papers say, runs go on, and wrong fields are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from ddkern.augment import DSA, DrawKey  # noqa: E402
from ddkern.data import DistilledSet, Normalization  # noqa: E402
from ddkern.distill import DC, DM, Random, distill, make_method  # noqa: E402
from ddkern.models import make_model  # noqa: E402
from helpers.students import make_task  # noqa: E402

TRAIN = make_task(90, seed=5, split="train")
NORMALIZATION = Normalization.fit(TRAIN)
NETWORK = {"model": "convnet-d3", "model_options": {"width": 8, "norm": "group"}, "device": "cpu"}
SEED, IPC = 3, 2


def learned(method: DM | DC, **arguments) -> DistilledSet:
    return distill(TRAIN, method, normalization=NORMALIZATION, random_state=SEED, **arguments)


def first_images() -> Tensor:
    return torch.from_numpy(learned(Random(ipc=IPC)).inputs())


def draw_network(draws: np.random.Generator) -> torch.nn.Module:
    seed = int(draws.integers(1 << 63))
    return make_model(
        "convnet-d3", n_classes=3, image_size=8, seed=seed, **NETWORK["model_options"]
    )


def draw_real(label: int, count: int, draws: np.random.Generator) -> Tensor:
    rows = draws.choice(TRAIN.rows_of_class(label), count, replace=False, shuffle=False)
    return torch.from_numpy(NORMALIZATION.apply(TRAIN.images(rows)))


def descend(
    images: Tensor, loss_of: Callable[[int, Tensor], Tensor], steps: int, lr: float
) -> Tensor:
    velocity = torch.zeros_like(images)
    for step in range(steps):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(step, images), images)
        velocity = 0.5 * velocity + gradient
        images = images.detach() - lr * velocity
    return images


@pytest.mark.parametrize("augment", [None, DSA()])
def test_iterations_of_dm_are_those_of_the_paper(augment: DSA | None) -> None:
    def loss_of(iteration: int, images: Tensor) -> Tensor:
        draws = np.random.Generator(np.random.Philox(key=[SEED, iteration]))
        network = draw_network(draws)
        total = torch.zeros(())
        for label in range(3):
            real, ours = draw_real(label, 7, draws), images[IPC * label : IPC * (label + 1)]
            if augment is not None:
                key = DrawKey(SEED, iteration, label)
                real, ours = (augment(x, key, siamese=True) for x in (real, ours))
            difference = network.embed(real).mean(0) - network.embed(ours).mean(0)
            total = total + difference.square().sum()
        return total

    method = DM(
        ipc=IPC, iterations=3, batch_size=7, lr_images=0.5, momentum=0.5, augment=augment, **NETWORK
    )
    expected = descend(first_images(), loss_of, 3, 0.5)
    np.testing.assert_allclose(learned(method).inputs(), expected.numpy(), rtol=1e-3, atol=1e-3)


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    if a.dim() == 1:
        return torch.zeros(())
    a, b = a.flatten(1), b.flatten(1)
    return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()


def test_an_iteration_of_dsa_is_that_of_the_paper() -> None:
    dsa = DSA()
    draws = np.random.Generator(np.random.Philox(key=[SEED, 0]))
    network = draw_network(draws)
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(parameters, 0.05, momentum=0.5)
    images, labels = first_images(), torch.arange(3).repeat_interleave(IPC)
    velocity, steps = torch.zeros_like(images), 0

    def gradients(batch: Tensor, label: int, keep: bool) -> tuple[Tensor, ...]:
        loss = torch.nn.functional.cross_entropy(network(batch), torch.full((len(batch),), label))
        return torch.autograd.grad(loss, parameters, create_graph=keep)

    for loop in range(3):
        images = images.detach().requires_grad_()
        total = torch.zeros(())
        for label in range(3):
            real, ours = draw_real(label, 7, draws), images[IPC * label : IPC * (label + 1)]
            key = DrawKey(SEED, 0, steps)
            real, ours = (dsa(x, key, siamese=True) for x in (real, ours))
            pairs = zip(gradients(ours, label, True), gradients(real, label, False), strict=True)
            total = total + sum(cosine_distance(a, b) for a, b in pairs)
            steps += 1
        (gradient,) = torch.autograd.grad(total, images)
        velocity = 0.5 * velocity + gradient
        images = images.detach() - 0.2 * velocity
        if loop < 2:
            for _ in range(2):
                rows = torch.from_numpy(draws.permutation(6))
                inputs = dsa(images[rows], DrawKey(SEED, 0, steps))
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(inputs), labels[rows]).backward()
                optimizer.step()
                steps += 1
    method = DC(
        ipc=IPC,
        iterations=1,
        outer_loop=3,
        inner_loop=2,
        batch_size=7,
        lr_images=0.2,
        lr_network=0.05,
        augment=dsa,
        **NETWORK,
    )
    np.testing.assert_allclose(learned(method).inputs(), images.numpy(), rtol=2e-3, atol=2e-3)


METHODS = {
    "dm": DM(ipc=IPC, iterations=4, batch_size=7, **NETWORK),
    "dc": DC(ipc=1, iterations=4, batch_size=7, **NETWORK),
}


@pytest.mark.parametrize("name", list(METHODS))
def test_an_interrupted_run_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    from dataclasses import replace

    def stop(progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    method = replace(METHODS[name], folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        learned(method, progress=stop)
    assert np.array_equal(learned(method).inputs(), learned(METHODS[name]).inputs())


def test_loops_of_the_authors_code() -> None:
    assert [(DC(ipc=n).outer_loop, DC(ipc=n).inner_loop) for n in (1, 10, 50)] == [
        (1, 1),
        (10, 50),
        (50, 10),
    ]
    assert DC(ipc=7, outer_loop=2, inner_loop=3).options()["inner_loop"] == 3
    assert DC(ipc=10, inner_loop=5).outer_loop == 10


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("dc", {"ipc": 7}, "ipc=7 has no published loops; outer_loop and inner_loop must be given"),
        ("dc", {"ipc": 1, "metric": "ours"}, "metric='ours'; it must be one of 'cosine'"),
        ("dc", {"ipc": 1, "lr_network": -1}, "lr_network=-1"),
        ("dm", {"ipc": 1, "batch_size": 0}, "batch_size=0"),
        ("dm", {"ipc": 1, "init": "other"}, "init='other'"),
        ("dm", {"ipc": 1, "momentum": "much"}, "momentum='much' is a str"),
        ("dm", {"ipc": 40}, "ipc=40, but class 0"),
        ("dm", {"ipc": 1, "model": "no-net"}, "model='no-net'"),
    ],
)
def test_wrong_arguments(name: str, fields: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        learned(make_method(name, **fields))
