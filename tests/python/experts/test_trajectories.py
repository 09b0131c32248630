# SPDX-License-Identifier: Apache-2.0
"""Experts: the trajectory is that of plain SGD, however it was interrupted or batched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from ddkern.augment import DSA  # noqa: E402
from ddkern.data import Normalization  # noqa: E402
from ddkern.experts import GSAM, ExpertBuffer, expert_recipe, train_experts  # noqa: E402
from ddkern.models import FlatNetwork, make_model  # noqa: E402
from ddkern.training import Decay, Optimizer, PixelImages, Recipe, TrainingSet  # noqa: E402
from ddkern.training.images import one_hot  # noqa: E402
from ddkern.training.loop import augmented_batches, train  # noqa: E402
from helpers.students import make_task  # noqa: E402

TRAIN, TEST = make_task(90, seed=5, split="train"), make_task()
NORMALIZATION = Normalization.fit(TRAIN)
MODEL = {"model": "convnet-d3", "model_options": {"width": 8, "norm": "group"}}
RECIPE = Recipe(
    epochs=4,
    batch_size=8,
    optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.5, weight_decay=1e-3),
    decay=Decay(kind="constant"),
    augment=(DSA(strategy="crop_cutout_scale"),),
)


def experts(folder: Path, n_experts: int = 1, **changes) -> ExpertBuffer:
    arguments = {
        "n_experts": n_experts,
        "normalization": NORMALIZATION,
        "recipe": RECIPE,
        "precision": "float32",
        "device": "cpu",
        **MODEL,
    }
    return train_experts(TRAIN, folder, **(arguments | changes))


def trajectory(buffer: ExpertBuffer, number: int = 0) -> Tensor:
    return torch.stack([buffer.parameters(number, e) for e in range(buffer.n_checkpoints)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ExpertBuffer:
    return experts(tmp_path_factory.mktemp("whole"), 3, test=TEST)


def seed_of(buffer: ExpertBuffer, number: int) -> int:
    path = buffer.folder / f"expert-{number:05d}.json"
    return json.loads(path.read_text())["seed"]


def test_it_is_the_trajectory_of_sgd(whole: ExpertBuffer) -> None:
    assert (len(whole), whole.n_checkpoints, whole.dtype) == (3, 5, "float32")
    seed = seed_of(whole, 1)
    network = make_model(
        "convnet-d3", n_classes=3, image_size=8, seed=seed, **MODEL["model_options"]
    )
    data = TrainingSet(
        PixelImages.of_dataset(TRAIN, NORMALIZATION, torch.device("cpu")),
        one_hot(torch.tensor(TRAIN.labels), 3),
        torch.ones(len(TRAIN)),
    )
    flat = FlatNetwork(network)
    rows = [flat.parameters_of(network)]
    train(
        network,
        data,
        RECIPE,
        seed=seed,
        on_epoch=lambda _: rows.append(flat.parameters_of(network)),
    )
    torch.testing.assert_close(trajectory(whole, 1), torch.stack(rows), rtol=1e-4, atol=1e-5)
    assert not torch.equal(trajectory(whole, 0), trajectory(whole, 1))


def test_they_learn_and_are_tested(whole: ExpertBuffer) -> None:
    accuracies = whole.accuracies()
    assert list(accuracies) == [0, 1, 2]
    assert min(accuracies.values()) > 0.8
    network = whole.network()
    assert sum(p.numel() for p in network.parameters()) == whole.n_parameters


def test_an_interrupted_training_goes_on_with_the_same_bits(
    tmp_path: Path, whole: ExpertBuffer
) -> None:
    def stop_after(epochs: int):
        def show(progress) -> None:
            if progress.done == epochs:
                raise KeyboardInterrupt

        return show

    for epochs in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            experts(tmp_path, 3, progress=stop_after(epochs))
    assert ExpertBuffer.open(tmp_path).numbers == (0,)
    reports = []
    parted = experts(tmp_path, 3, progress=reports.append)
    assert [r.done for r in reports] == list(range(6, 13))
    for number in range(3):
        assert torch.equal(trajectory(parted, number), trajectory(whole, number))
    names = {path.suffix for path in tmp_path.iterdir() if path.name != ".lock"}
    assert names == {".bin", ".json"}


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path, whole: ExpertBuffer) -> None:
    """A lock belongs to an open file, so one process can hold it twice, or fail to."""
    pytest.importorskip("fcntl")

    def second(report) -> None:
        if report.done == 1:
            with pytest.raises(BlockingIOError, match=r"another process is at work in '.*'; wait"):
                experts(tmp_path, 3)

    parted = experts(tmp_path, 3, progress=second)
    assert torch.equal(trajectory(parted, 2), trajectory(whole, 2))


def test_a_row_without_its_state_is_written_again(tmp_path: Path, whole: ExpertBuffer) -> None:
    """As after a kill between the two."""

    def stop(progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experts(tmp_path, progress=stop)
    with (tmp_path / "expert-00000.partial").open("ab") as file:
        file.write(b"\xff" * 4 * whole.n_parameters)
    assert torch.equal(trajectory(experts(tmp_path)), trajectory(whole))


def test_more_experts_are_added(tmp_path: Path, whole: ExpertBuffer) -> None:
    first = experts(tmp_path, 1)
    assert torch.equal(trajectory(first), trajectory(whole))
    assert experts(tmp_path, 3).numbers == (0, 1, 2)
    assert torch.equal(trajectory(experts(tmp_path, 2), 2), trajectory(whole, 2))


@pytest.mark.parametrize("sharpness", [None, GSAM(rho=0.05, alpha=0.3)])
def test_side_by_side_is_one_by_one(tmp_path: Path, sharpness: GSAM | None) -> None:
    options = {"sharpness": sharpness, "recipe": replace(RECIPE, epochs=2)}
    together = experts(tmp_path / "together", 3, at_once=2, **options)
    alone = experts(tmp_path / "alone", 3, **options)
    for number in range(3):
        torch.testing.assert_close(
            trajectory(together, number), trajectory(alone, number), rtol=1e-3, atol=1e-4
        )


def test_interrupted_side_by_side(tmp_path: Path, whole: ExpertBuffer) -> None:
    def stop(progress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experts(tmp_path, 2, at_once=2, progress=stop)
    for number in range(2):
        found = trajectory(experts(tmp_path, 2), number)
        torch.testing.assert_close(found, trajectory(whole, number), rtol=1e-3, atol=1e-4)


def test_bfloat16_files_hold_rounded_rows(tmp_path: Path, whole: ExpertBuffer) -> None:
    half = experts(tmp_path, dtype="bfloat16")
    assert torch.equal(trajectory(half), trajectory(whole).bfloat16().float())
    sizes = [(b.folder / "expert-00000.bin").stat().st_size for b in (half, whole)]
    assert sizes[1] == 2 * sizes[0] == 4 * 5 * whole.n_parameters


def test_gsam_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    matrix, p = rng.standard_normal((2, 6, 6)), rng.standard_normal((2, 6))

    def gradient(at: np.ndarray) -> np.ndarray:
        return np.einsum("nij,nj->ni", matrix, at) + at**3

    found = GSAM(rho=0.3, alpha=0.7).direction(
        torch.from_numpy(p), lambda at: torch.from_numpy(gradient(at.numpy()))
    )
    for row in range(2):
        g = gradient(p)[row]
        up = 0.3 * g * p[row] ** 2 / np.linalg.norm(np.abs(p[row]) * g)
        moved = p.copy()
        moved[row] += up
        h = gradient(moved)[row]
        along = (g @ h) / (h @ h) * h
        np.testing.assert_allclose(found[row], h - 0.7 * (g - along), rtol=1e-9)


def test_without_sharpness_gsam_is_sgd(tmp_path: Path, whole: ExpertBuffer) -> None:
    found = experts(tmp_path, sharpness=GSAM(rho=0.0, alpha=0.0))
    assert torch.equal(trajectory(found), trajectory(whole))


def test_one_folder_one_kind_of_experts(tmp_path: Path, whole: ExpertBuffer) -> None:
    experts(tmp_path)
    other = replace(RECIPE, optimizer=Optimizer(name="sgd", lr=0.2))
    for changes, name in (
        ({"recipe": other}, "recipe"),
        ({"random_state": 1}, "random_state"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"sharpness": GSAM()}, "sharpness"),
        ({"normalization": Normalization.identity(3)}, "normalization_hash"),
    ):
        with pytest.raises(ValueError, match=f"has a buffer with {name}="):
            experts(tmp_path, **changes)
    assert torch.equal(trajectory(ExpertBuffer.open(tmp_path)), trajectory(whole))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_experts": 0}, "n_experts=0; it must be an integer of at least 1"),
        ({"at_once": 0}, "at_once=0"),
        ({"dtype": "float16"}, "dtype='float16'; it must be one of 'float32', 'bfloat16'"),
        ({"sharpness": 0.1}, "sharpness is a float; it must be a GSAM or None"),
        (
            {"recipe": replace(RECIPE, optimizer=Optimizer(name="adamw", lr=0.1))},
            "optimizer 'adamw'; it must be 'sgd'",
        ),
        ({"recipe": replace(RECIPE, loss="kl")}, "loss='kl'"),
        ({"model_options": {"width": 8, "norm": "batch"}, "at_once": 2}, "running statistics"),
        ({"normalization": Normalization.identity(1)}, "its normalization is for 1 channels"),
    ],
)
def test_wrong_arguments(tmp_path: Path, changes, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        experts(tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


def test_divergence_is_an_error_and_keeps_what_was(tmp_path: Path) -> None:
    wild = replace(RECIPE, optimizer=Optimizer(name="sgd", lr=1e30), augment=())
    with pytest.raises(ValueError, match=r"expert 0 has parameters that are NaN.*diverged"):
        experts(tmp_path, recipe=wild)
    assert len(ExpertBuffer.open(tmp_path)) == 0


def test_batch_norm_is_trained_on_batches_and_not_tested(tmp_path: Path) -> None:
    found = experts(tmp_path, model_options={"width": 8, "norm": "batch"}, test=TEST)
    assert found.accuracies() == {}
    assert torch.isfinite(trajectory(found)).all()


def test_the_default_is_the_recipe_of_mtt() -> None:
    recipe = expert_recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.augment) == (50, 256, (DSA(),))
    assert recipe.optimizer == Optimizer(name="sgd", lr=0.01)
    assert expert_recipe(augment=None).augment == ()


def test_batches_of_experts_differ() -> None:
    data = TrainingSet(
        PixelImages.of_dataset(TRAIN, NORMALIZATION, torch.device("cpu")),
        one_hot(torch.tensor(TRAIN.labels), 3),
        torch.ones(len(TRAIN)),
    )
    one, other = (next(augmented_batches(data, RECIPE, seed, 0)).targets for seed in (0, 1))
    assert not torch.equal(one, other)
