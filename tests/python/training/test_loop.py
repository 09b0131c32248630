# SPDX-License-Identifier: Apache-2.0
"""The loop does what the plain loop of the literature does, and can stop anywhere."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from ddkern.augment import CutMix, DrawKey  # noqa: E402
from ddkern.evaluate.teachers import OnlineTeacher, label_storage_bytes, relabel  # noqa: E402
from ddkern.training import Recipe, TrainingSet, train  # noqa: E402
from ddkern.training.images import InputImages, PixelImages, one_hot  # noqa: E402
from ddkern.training.loop import augmented_batches, epoch_order  # noqa: E402
from ddkern.training.loss import cross_entropy, softened_divergence  # noqa: E402
from helpers.students import TinyNet, make_bars, make_protocol  # noqa: E402

RECIPE = make_protocol().recipe


def make_data(weight: np.ndarray | None = None) -> TrainingSet:
    bars = make_bars()
    values = np.ones(len(bars)) if weight is None else weight
    return TrainingSet(
        InputImages(torch.tensor(bars.inputs())),
        one_hot(torch.tensor(bars.labels), 3),
        torch.tensor(values, dtype=torch.float32),
    )


def make_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return TinyNet(3)


def parameters_of(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def plain_loop(net: nn.Module, data: TrainingSet, recipe: Recipe, seed: int) -> None:
    """The literature's loop, written out: step decay by a new optimiser, one batch at a time."""
    options = {"momentum": 0.9, "weight_decay": 0.0}
    optimizer = torch.optim.SGD(net.parameters(), 0.05, **options)
    for epoch in range(6):
        if epoch == 4:
            optimizer = torch.optim.SGD(net.parameters(), 0.005, **options)
        order = epoch_order(len(data), seed, epoch)
        for step, first in enumerate(range(0, 12, 5)):
            rows = torch.from_numpy(order[first : first + 5])
            inputs = recipe.augment[0](data.images.inputs(rows), DrawKey(seed, epoch, step))
            losses = functional.cross_entropy(
                net(inputs), data.targets[rows].argmax(1), reduction="none"
            )
            loss = (losses * data.weight[rows]).sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@pytest.mark.parametrize("weighted", [False, True])
def test_training_is_the_plain_loop(weighted: bool) -> None:
    data = make_data(np.linspace(0, 2, 12) if weighted else None)
    ours, plain = make_net(), make_net()
    start = parameters_of(ours)
    train(ours, data, RECIPE, seed=7)
    plain_loop(plain, data, RECIPE, 7)
    torch.testing.assert_close(parameters_of(ours), parameters_of(plain), rtol=1e-5, atol=1e-6)
    assert (parameters_of(ours) - start).abs().max() > 1e-3


def test_seed_and_learning_rate_matter_and_repeat() -> None:
    data = make_data()
    nets = [make_net() for _ in range(4)]
    for net, seed, lr in zip(nets, (1, 1, 2, 1), (None, None, None, 0.01), strict=True):
        train(net, data, RECIPE, seed=seed, lr=lr)
    flat = [parameters_of(net) for net in nets]
    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])
    assert not torch.equal(flat[0], flat[3])


@pytest.mark.parametrize("stop_after", [0, 2, 3, 4])
def test_interrupted_training_ends_with_the_same_bits(tmp_path: Path, stop_after: int) -> None:
    data = make_data()
    whole, parted = make_net(), make_net()
    train(whole, data, RECIPE, seed=3)

    def stop(report) -> None:
        if report.epoch == stop_after:
            raise KeyboardInterrupt

    path = tmp_path / "half.pt"
    with pytest.raises(KeyboardInterrupt):
        train(parted, data, RECIPE, seed=3, checkpoint=path, on_epoch=stop)
    assert path.exists()
    fresh = make_net(seed=99)
    epochs: list[int] = []
    train(fresh, data, RECIPE, seed=3, checkpoint=path, on_epoch=lambda r: epochs.append(r.epoch))
    assert epochs == list(range(stop_after + 1, 6))
    assert torch.equal(parameters_of(fresh), parameters_of(whole))
    assert not path.exists()


def test_divergence_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) in epoch \d+ of 6.*diverged"):
        train(make_net(), make_data(), RECIPE, seed=0, lr=1e30)


def test_teacher_and_loss_must_fit() -> None:
    kl = replace(RECIPE, loss="kl")
    with pytest.raises(ValueError, match="'kl' needs a teacher"):
        train(make_net(), make_data(), kl, seed=0)
    teacher = OnlineTeacher(make_net(1), "float32")
    with pytest.raises(ValueError, match="only 'kl' does"):
        train(make_net(), make_data(), RECIPE, seed=0, teacher=teacher)


def test_every_image_comes_once_an_epoch_in_changing_order() -> None:
    orders = [epoch_order(100, 5, epoch) for epoch in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert not np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[2], epoch_order(100, 5, 2))


def test_cutmix_mixes_labels_and_weights_alike() -> None:
    recipe = replace(RECIPE, augment=(), mixing=CutMix())
    data = make_data(np.arange(12.0))
    mixed = 0
    for epoch in range(4):
        for batch in augmented_batches(data, recipe, 0, epoch):
            assert torch.allclose(batch.targets.sum(1), torch.ones(len(batch.targets)))
            changed = (batch.inputs != batch.unmixed).flatten(1).any(1)
            order = epoch_order(12, 0, epoch)[batch.first : batch.first + len(batch.inputs)]
            own = data.weight[torch.from_numpy(order)]
            assert torch.equal(batch.weight[~changed], own[~changed]) or not (~changed).any()
            assert batch.weight.sum() == pytest.approx(float(own.sum()), rel=1e-5)
            mixed += int(changed.sum())
    assert mixed > 10


def test_real_images_have_their_own_augmentation() -> None:
    real = torch.arange(12) < 6
    data = replace(make_data(), real=real)
    recipe = replace(RECIPE, augment_real=())
    seen = 0
    for batch in augmented_batches(data, recipe, 1, 0):
        rows = torch.from_numpy(epoch_order(12, 1, 0)[batch.first : batch.first + 5].copy())
        clean = data.images.inputs(rows)
        same = (batch.inputs == clean).flatten(1).all(1)
        assert same[real[rows]].all()
        seen += int((~same).sum())
    assert seen > 0


def test_stored_labels_teach_what_the_teacher_says(tmp_path: Path) -> None:
    recipe = replace(RECIPE, loss="kl", temperature=4.0, mixing=CutMix())
    data = make_data()
    online = OnlineTeacher(make_net(5), "float32")
    stored = relabel(data, recipe, 42, online, tmp_path)
    again = relabel(data, recipe, 42, OnlineTeacher(make_net(6), "float32"), tmp_path)
    students = [make_net() for _ in range(3)]
    for student, teacher in zip(students, (online, stored, again), strict=True):
        train(student, data, recipe, seed=42, teacher=teacher)
    a, b, c = map(parameters_of, students)
    torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)  # float16 labels
    assert torch.equal(b, c)  # files were taken, not the other teacher
    assert sum(np.load(p).nbytes for p in tmp_path.glob("*.npy")) == label_storage_bytes(6, 12, 3)


def test_unmixed_forward_moves_batch_norm_alone() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 3))

    recipe = replace(RECIPE, mixing=CutMix(), augment=())
    plain, extra = make(), make()
    train(plain, make_data(), recipe, seed=0)
    train(extra, make_data(), replace(recipe, unmixed_forward=True), seed=0)
    assert torch.equal(parameters_of(plain), parameters_of(extra))
    assert plain[0].num_batches_tracked * 2 == extra[0].num_batches_tracked


def test_losses_equal_their_definitions() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 7, 4, generator=rng, dtype=torch.float64)
    weight = torch.rand(7, generator=rng, dtype=torch.float64)
    labels = torch.arange(7) % 4
    expected = (weight * functional.cross_entropy(logits, labels, reduction="none")).mean()
    hard = functional.one_hot(labels, 4).double()
    torch.testing.assert_close(cross_entropy(logits, hard, weight), expected)
    p, q = (teacher / 3).softmax(1), (logits / 3).softmax(1)
    divergence = (weight * (p * (p.log() - q.log())).sum(1)).mean()
    found = softened_divergence(logits, teacher, weight, 3.0, squared=False)
    torch.testing.assert_close(found, divergence)
    torch.testing.assert_close(
        softened_divergence(logits, teacher, weight, 3.0, squared=True), 9 * divergence
    )


def test_pixels_are_normalised_as_the_set_says() -> None:
    from ddkern.data import Normalization
    from helpers.distilled import make_zca

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 3, 4, 4), np.uint8)
    plain = Normalization(np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3]))
    whitening = Normalization(np.zeros(3), np.ones(3), make_zca(48))
    for norm in (plain, whitening):
        images = PixelImages(pixels, norm, torch.device("cpu"))
        expected = torch.tensor(norm.apply(pixels))
        torch.testing.assert_close(images.inputs(slice(None)), expected, rtol=1e-4, atol=1e-4)
        rows = torch.tensor([4, 0])
        torch.testing.assert_close(images.inputs(rows), expected[rows], rtol=1e-4, atol=1e-4)


def test_the_network_that_is_given_is_trained() -> None:
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    train(net, make_data(), RECIPE, seed=0)
    assert all(not torch.equal(before[name], value) for name, value in net.state_dict().items())
