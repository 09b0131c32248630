# SPDX-License-Identifier: Apache-2.0
"""MTT: an iteration is what the paper says, runs go on, and wrong experts are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ddkern.augment import DSA, DrawKey  # noqa: E402
from ddkern.data import Normalization  # noqa: E402
from ddkern.distill import MTT, KMeansNearest, Looks, Random, distill, make_method  # noqa: E402
from ddkern.experts import ExpertBuffer, train_experts  # noqa: E402
from ddkern.training import Decay, Optimizer, Recipe  # noqa: E402
from helpers.students import make_task  # noqa: E402
from reference.unrolled import stored_graph_distance  # noqa: E402

TRAIN = make_task(90, seed=5, split="train")
NORMALIZATION = Normalization.fit(TRAIN)
SETTINGS = {
    "ipc": 2,
    "iterations": 4,
    "student_steps": 3,
    "expert_epochs": 1,
    "max_start_epoch": 3,
    "batch_size": 4,
    "student_lr": 0.05,
    "lr_images": 20.0,
    "lr_student_lr": 1e-4,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> ExpertBuffer:
    recipe = Recipe(
        epochs=3,
        batch_size=8,
        optimizer=Optimizer(name="sgd", lr=0.05),
        decay=Decay(kind="constant"),
    )
    return train_experts(
        TRAIN,
        tmp_path_factory.mktemp("experts"),
        n_experts=2,
        normalization=NORMALIZATION,
        model="convnet-d3",
        model_options={"width": 8, "norm": "group"},
        recipe=recipe,
        precision="float32",
        device="cpu",
    )


def learned(experts: ExpertBuffer, seed: int = 3, **changes):
    method = MTT(experts=experts, **(SETTINGS | changes))
    return distill(TRAIN, method, normalization=NORMALIZATION, random_state=seed)


@pytest.mark.parametrize(("students", "iterations"), [(1, 4), (2, 2)])
def test_iterations_are_those_of_the_paper(
    experts: ExpertBuffer, students: int, iterations: int
) -> None:
    """Against a stored graph, with the draws written out; of several students, the mean."""
    seed, dsa = 3, DSA()
    network = experts.network()
    start_set = distill(TRAIN, Random(ipc=2), normalization=NORMALIZATION, random_state=seed)
    images = torch.from_numpy(start_set.inputs())
    labels = torch.from_numpy(start_set.labels)
    rate = torch.tensor(0.05)
    velocity = [torch.zeros_like(images), torch.zeros(())]
    for iteration in range(iterations):
        draws = np.random.Generator(np.random.Philox(key=[seed, iteration]))
        begins = [(int(draws.integers(2)), int(draws.integers(3))) for _ in range(students)]
        order: list[np.ndarray] = []
        while len(order) < 3:
            permutation = draws.permutation(6)
            order += [permutation[:4], permutation[4:]]
        images.requires_grad_()
        rate.requires_grad_()
        losses = [
            stored_graph_distance(
                network,
                [torch.from_numpy(rows) for rows in order[:3]],
                experts.parameters(number, start),
                experts.parameters(number, start + 1),
                images,
                labels,
                rate,
                augment=lambda x, step, it=iteration: dsa(x, DrawKey(seed, it, step)),
            )
            for number, start in begins
        ]
        loss = torch.stack(losses).mean()
        gradients = torch.autograd.grad(loss, (images, rate))
        velocity = [0.5 * v + g for v, g in zip(velocity, gradients, strict=True)]
        images = images.detach() - 20 * velocity[0]
        rate = rate.detach() - 1e-4 * velocity[1]
    found = learned(experts, students=students, iterations=iterations, at_once=students)
    np.testing.assert_allclose(found.inputs(), images.numpy(), rtol=2e-3, atol=2e-3)
    assert found.student_lr == pytest.approx(float(rate), rel=1e-3)
    assert (found.labels == labels.numpy()).all()


def test_the_loss_falls(experts: ExpertBuffer, tmp_path: Path) -> None:
    import json

    learned(experts, iterations=30, augment=None, lr_images=50.0, folder=tmp_path)
    losses = json.loads((tmp_path / "history.json").read_text())["losses"]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_an_interrupted_run_goes_on_with_the_same_bits(
    experts: ExpertBuffer, tmp_path: Path
) -> None:
    def stop(progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    method = MTT(experts=experts, folder=tmp_path, ema=0.9, **(SETTINGS | {"students": 2}))
    arguments = {"normalization": NORMALIZATION, "random_state": 3}
    with pytest.raises(KeyboardInterrupt):
        distill(TRAIN, method, progress=stop, **arguments)
    parted = distill(TRAIN, method, **arguments)
    whole = learned(experts, ema=0.9, students=2)
    assert np.array_equal(parted.inputs(), whole.inputs())
    assert parted.student_lr == whole.student_lr
    assert not np.array_equal(whole.inputs(), learned(experts, students=2).inputs())
    for change in ({"student_steps": 2}, {"students": 1}):
        with pytest.raises(ValueError, match="of a run with other options, data or seed"):
            distill(TRAIN, replace(method, **change), **arguments)


def test_the_rate_stays_above_zero_unless_asked(experts: ExpertBuffer) -> None:
    wild = {"lr_student_lr": 10.0, "lr_images": 0.0, "iterations": 3}
    kept = learned(experts, **wild).student_lr
    assert kept is None or kept > 0
    rates = []
    for positive in (True, False):
        found = learned(experts, positive_lr=positive, lr_student_lr=1.0, iterations=1)
        rates.append(found.student_lr)
    if rates[1] is None:  # below 0, which a set cannot have
        assert rates[0] == pytest.approx(0.025)


def test_provenance_says_what_was_done(experts: ExpertBuffer, tmp_path: Path) -> None:
    made = learned(experts, iterations=1, students=2, folder=tmp_path)
    options = made.provenance.options
    assert made.provenance.method == "mtt"
    assert (options["student_steps"], options["students"]) == (3, 2)
    assert options["augment"]["strategy"] == "color_crop_cutout_flip_scale_rotate"
    assert options["experts"]["numbers"] == [0, 1]
    assert "folder" not in options


def test_published_settings(experts: ExpertBuffer) -> None:
    method = MTT.published("cifar10", 1, experts, max_start_epoch=1, iterations=7)
    assert (method.student_steps, method.expert_epochs, method.iterations) == (50, 2, 7)
    assert (method.lr_images, method.lr_student_lr, method.student_lr) == (100, 1e-7, 0.01)
    assert method.augment == DSA()
    assert MTT.published_zca("cifar10", 1)
    assert not MTT.published_zca("cifar10", 50)
    with pytest.raises(ValueError, match=r"dataset='mnist' with ipc=1 has no published settings"):
        MTT.published("mnist", 1, experts)


def test_starts_are_drawn_between_two_epochs(
    experts: ExpertBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    parameters = ExpertBuffer.parameters

    def watched(buffer: ExpertBuffer, number: int, epoch: int):
        read.append(epoch)
        return parameters(buffer, number, epoch)

    monkeypatch.setattr(ExpertBuffer, "parameters", watched)
    learned(experts, min_start_epoch=1, iterations=12)
    starts, targets = read[::2], read[1::2]
    assert set(starts) == {1, 2}
    assert targets == [epoch + 1 for epoch in starts]


def test_where_images_begin(experts: ExpertBuffer) -> None:
    still = {"lr_images": 0.0, "iterations": 1}
    for init, method in (("real", Random(ipc=2)), ("k-means", KMeansNearest(ipc=2))):
        expected = distill(TRAIN, method, normalization=NORMALIZATION, random_state=3)
        assert np.array_equal(learned(experts, init=init, **still).inputs(), expected.inputs())
    noise = learned(experts, init="noise", lr_images=0.0, iterations=1).inputs()
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.1)


def test_looks_use_the_learned_rate(experts: ExpertBuffer, tmp_path: Path) -> None:
    looks = Looks(test=make_task(), every=4, protocol="small")
    learned(experts, looks=looks, folder=tmp_path)
    assert "accuracy" in (tmp_path / "history.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ipc": 0}, "ipc=0; it must be"),
        ({"student_steps": 0}, "student_steps=0"),
        ({"students": 0}, "students=0; it must be"),
        ({"at_once": 0}, "at_once=0"),
        ({"max_start_epoch": 4}, "max_start_epoch=4 and expert_epochs=1 reach epoch 4, but"),
        ({"min_start_epoch": 3}, "min_start_epoch=3; it must be below max_start_epoch=3"),
        ({"min_start_epoch": -1}, "min_start_epoch=-1"),
        ({"compiled": "yes"}, "compiled='yes'; it must be true or false"),
        ({"student_lr": 0.0}, "student_lr=0; it must be above 0"),
        ({"lr_images": -1.0}, "lr_images=-1.0"),
        ({"momentum": 2.0}, "momentum=2.0"),
        ({"ema": 1.5}, "ema=1.5"),
        ({"init": "zeros"}, "init='zeros'; it must be one of 'real', 'k-means', 'noise'"),
        ({"ipc": 31}, "ipc=31, but class 0"),
        ({"batch_size": 7}, "batch_size=7; the set has 6 images"),
        ({"gradient": "some"}, "gradient='some'"),
        ({"precision": "float16"}, "precision='float16'"),
        ({"experts": "here"}, "experts is a str; it must be an ExpertBuffer"),
    ],
)
def test_wrong_arguments(experts: ExpertBuffer, changes, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        distill(
            TRAIN,
            MTT(**({"experts": experts} | SETTINGS | changes)),
            normalization=NORMALIZATION,
            random_state=0,
        )


def test_experts_of_something_else(experts: ExpertBuffer, tmp_path: Path) -> None:
    method = MTT(experts=experts, **SETTINGS)
    with pytest.raises(ValueError, match="under another normalization"):
        distill(TRAIN, method, normalization=Normalization.identity(3), random_state=0)
    with pytest.raises(ValueError, match=r"trained on other images \('bars'\)"):
        distill(make_task(90, seed=6, split="train"), method, normalization=NORMALIZATION)
    with pytest.raises(ValueError, match="trained for image_size="):
        distill(make_task(90, zoom=2), method, normalization=NORMALIZATION)
    empty = ExpertBuffer.create(
        tmp_path, experts.conditions, n_checkpoints=4, n_parameters=9, dtype="float32"
    )
    with pytest.raises(ValueError, match="has none that is complete"):
        MTT(experts=empty, **SETTINGS)


def test_nan_in_an_expert_ends_the_run(experts: ExpertBuffer, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "experts"
    shutil.copytree(experts.folder, folder)
    for path in folder.glob("*.bin"):
        rows = np.memmap(path, np.float32, "r+")
        rows[:] = np.nan
        rows.flush()
    with pytest.raises(ValueError, match=r"expert-0000\d.bin holds NaN or infinity in checkpoint"):
        learned(ExpertBuffer.open(folder))


def test_it_has_a_name(experts: ExpertBuffer) -> None:
    assert isinstance(make_method("mtt", ipc=1, experts=experts, max_start_epoch=1), MTT)
