# SPDX-License-Identifier: Apache-2.0
"""The loop of learned images: SGD as torch does it, resumable, and never past a wrong number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ddkern.data import Normalization  # noqa: E402
from ddkern.distill import Looks  # noqa: E402
from ddkern.distill.synthesis import RandomNetworks, RealImages, Synthesis, draws_of  # noqa: E402
from helpers.students import make_bars, make_task  # noqa: E402

START = torch.linspace(-1, 1, 6).reshape(2, 3)


def goal(iteration: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(iteration).standard_normal((2, 3))).float()


def run(
    iterations: int,
    folder: Path | None = None,
    *,
    ema: float | None = None,
    conditions: dict | None = None,
    fail_at: int | None = None,
    **arguments,
) -> Synthesis:
    synthesis = Synthesis("test", conditions or {"a": 1}, folder)
    value = synthesis.learn("images", START, lr=0.1, momentum=0.5, ema=ema)

    def advance(iteration: int) -> float:
        if iteration == fail_at:
            raise KeyboardInterrupt
        loss = (value - goal(iteration)).square().sum()
        return synthesis.descend(loss)

    synthesis.run(advance, iterations, snapshot=make_bars, **arguments)
    return synthesis


def expected(iterations: int, ema: float | None = None) -> torch.Tensor:
    value, velocity, average = START.clone(), torch.zeros_like(START), START.clone()
    for iteration in range(iterations):
        velocity = 0.5 * velocity + 2 * (value - goal(iteration))
        value = value - 0.1 * velocity
        if ema is not None:
            average = ema * average + (1 - ema) * value
    return value if ema is None else average


@pytest.mark.parametrize("ema", [None, 0.9])
def test_it_is_sgd_with_momentum_and_its_average(ema: float | None) -> None:
    torch.testing.assert_close(run(7, ema=ema).result("images"), expected(7, ema))


def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(9, tmp_path, ema=0.9, fail_at=4)
    reports = []
    parted = run(9, tmp_path, ema=0.9, progress=reports.append)
    assert [r.done for r in reports][-1] == 9
    assert len(reports) < 9
    assert torch.equal(parted.result("images"), run(9, ema=0.9).result("images"))
    history = json.loads((tmp_path / "history.json").read_text())
    assert len(history["losses"]) == 9


def test_a_finished_run_is_not_done_again_and_can_be_continued(tmp_path: Path) -> None:
    run(5, tmp_path)
    assert torch.equal(run(5, tmp_path, fail_at=0).result("images"), run(5).result("images"))
    assert torch.equal(run(8, tmp_path).result("images"), run(8).result("images"))
    with pytest.raises(ValueError, match=r"iterations=5, but .* has a run of 8"):
        run(5, tmp_path)


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    run(2, tmp_path)
    with pytest.raises(ValueError, match=r"has synthesis.pt of a run with other options"):
        run(4, tmp_path, conditions={"a": 2})
    assert torch.equal(run(2, tmp_path, fail_at=0).result("images"), run(2).result("images"))


def test_a_state_that_was_cut_off_is_named(tmp_path: Path) -> None:
    run(2, tmp_path)
    path = tmp_path / "synthesis.pt"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"synthesis.pt is not a .pt file"):
        run(4, tmp_path)


@pytest.mark.parametrize("what", ["loss", "value"])
def test_a_wrong_number_is_an_error_and_is_not_kept(tmp_path: Path, what: str) -> None:
    run(3, tmp_path)
    synthesis = Synthesis("test", {"a": 1}, tmp_path)
    value = synthesis.learn("images", START, lr=0.1, momentum=0.5)

    def advance(_: int) -> float:
        # The derivative of the root is infinite at 0, its value is not.
        loss = value.sum() * torch.nan if what == "loss" else (value * 0).square().sum().sqrt()
        return synthesis.descend(loss)

    message = {
        "loss": "the loss of test is nan in iteration 3",
        "value": "images of test became NaN or infinite in iteration 3",
    }
    with pytest.raises(ValueError, match=message[what]):
        synthesis.run(advance, 5, snapshot=make_bars)
    assert torch.equal(run(3, tmp_path, fail_at=0).result("images"), run(3).result("images"))


def test_looks_are_kept_and_change_nothing(tmp_path: Path) -> None:
    looks = Looks(test=make_task(), every=2, protocol="small")
    notes = []
    looked = run(5, tmp_path, looks=looks, n_train=900, progress=lambda p: notes.append(p.note))
    assert torch.equal(looked.result("images"), run(5).result("images"))
    history = json.loads((tmp_path / "history.json").read_text())
    assert [entry["iteration"] for entry in history["looks"]] == [2, 4, 5]
    assert all(entry["protocol"] == "small@1" for entry in history["looks"])
    assert min(entry["accuracy"] for entry in history["looks"]) > 0.5
    assert "accuracy" not in notes[0]
    assert "accuracy" in notes[-1]


def test_wrong_looks() -> None:
    with pytest.raises(ValueError, match="every=0"):
        Looks(test=make_task(), every=0)
    with pytest.raises(ValueError, match="protocol='E99'"):
        Looks(test=make_task(), every=1, protocol="E99")


def test_real_images_are_of_their_class_and_different() -> None:
    task = make_task(30, seed=3, split="train")
    normalization = Normalization.fit(task)
    real = RealImages(task, normalization, torch.device("cpu"))
    for label in range(3):
        drawn = real.draw(label, 6, np.random.default_rng(label)).numpy()
        own = normalization.apply(task.images(task.rows_of_class(label)))
        # torch and numpy normalise in another order of operations.
        near = np.abs(drawn[:, None] - own[None]).max(axis=(2, 3, 4)) < 1e-5
        assert near.any(axis=1).all()
        assert near.any(axis=0).sum() == 6
        assert len(real.draw(label, 99, np.random.default_rng(0))) == 10


def test_every_seed_and_iteration_has_draws_of_its_own() -> None:
    seeds = (0, 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1)
    drawn = {int(draws_of(seed, it).integers(1 << 62)) for seed in seeds for it in (0, 1)}
    assert len(drawn) == 12


def test_networks_are_new_each_time_and_the_same_for_the_same_draws() -> None:
    task = make_task(30, seed=3, split="train")
    networks = RandomNetworks("convnet-d3", {"width": 4}, task, torch.device("cpu"))
    draws = np.random.default_rng(0)
    one, two = (networks.draw(draws).classifier.weight for _ in range(2))
    again = networks.draw(np.random.default_rng(0)).classifier.weight
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
