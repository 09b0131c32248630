# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from ddkern.priors import steps as module  # noqa: E402
from ddkern.priors.steps import Trained, batch_rows, run_steps  # noqa: E402

STEPS = 30


def loss_of(model: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 3, generator=generator)
    target = x @ torch.tensor([1.0, -2.0, 0.5]) + 1
    return (model(x)[:, 0] - target).square().mean()


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def run(path: Path, model: nn.Module | None = None, steps: int = STEPS) -> Trained:
    return run_steps(
        fresh() if model is None else model,
        loss_of,
        steps=steps,
        lr=0.1,
        ema=0.9,
        checkpoint=path,
        title="t",
        progress=None,
    )


def test_learns_and_averages(tmp_path: Path) -> None:
    model = fresh()
    trained = run(tmp_path / "c", model, 300)
    assert trained.losses[-1][1] < 1e-2 < trained.losses[0][1]
    assert trained.losses[-1][0] == 300
    torch.testing.assert_close(
        trained.averaged.weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=0.05, rtol=0
    )
    assert not torch.equal(trained.averaged.weight, model.weight)
    assert not trained.averaged.weight.requires_grad


def test_goes_on_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole")
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_CHECKPOINTS", -1.0)

    def interrupted(model: nn.Module, step: int) -> Tensor:
        if step == 17:
            raise KeyboardInterrupt
        return loss_of(model, step)

    with pytest.raises(KeyboardInterrupt):
        run_steps(
            fresh(),
            interrupted,
            steps=STEPS,
            lr=0.1,
            ema=0.9,
            checkpoint=tmp_path / "c",
            title="t",
            progress=None,
        )
    assert (tmp_path / "c").exists()
    resumed = run(tmp_path / "c")
    assert torch.equal(resumed.averaged.weight, whole.averaged.weight)
    assert resumed.losses == whole.losses


def test_a_finished_training_is_read(tmp_path: Path) -> None:
    once = run(tmp_path / "c")

    def never(model: nn.Module, step: int) -> Tensor:
        raise AssertionError("a step was taken")

    again = run_steps(
        fresh(),
        never,
        steps=STEPS,
        lr=0.1,
        ema=0.9,
        checkpoint=tmp_path / "c",
        title="t",
        progress=None,
    )
    assert torch.equal(again.averaged.weight, once.averaged.weight)


def test_divergence_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the loss is nan in step 0 of 30 .* has diverged"):
        run_steps(
            fresh(),
            lambda model, step: model(torch.full((1, 3), float("nan"))).sum(),
            steps=STEPS,
            lr=0.1,
            ema=0.9,
            checkpoint=tmp_path / "c",
            title="t",
            progress=None,
        )
    assert not (tmp_path / "c").exists()


def test_every_row_comes_once_a_pass() -> None:
    rows = [batch_rows(10, 3, 7, step) for step in range(6)]
    for epoch in (rows[:3], rows[3:]):
        taken = np.concatenate(epoch)
        assert len(set(taken.tolist())) == 9
    assert not np.array_equal(rows[0], rows[3])
    np.testing.assert_array_equal(batch_rows(10, 3, 7, 4), rows[4])
    assert sorted(batch_rows(4, 100, 0, 0).tolist()) == [0, 1, 2, 3]
