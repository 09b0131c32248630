# SPDX-License-Identifier: Apache-2.0
"""The loop over training steps that autoencoder and diffusion model share."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddkern.files import replaced_when_complete
from ddkern.progress import ProgressArgument, report_progress

__all__ = ["Trained", "batch_rows", "run_steps"]

_SECONDS_BETWEEN_CHECKPOINTS = 20.0
_WARMUP_SHARE = 0.05
_CURVE_POINTS = 200


@dataclass(slots=True)
class Trained:
    """What is left of a training.

    Attributes
    ----------
    averaged : nn.Module
        With the moving average of the weights.
    losses : list of (int, float)
        Step and mean loss since the entry before.
    seconds : float
        Of all processes that worked on it.
    """

    averaged: nn.Module
    losses: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0


def run_steps(
    model: nn.Module,
    loss_of: Callable[[nn.Module, int], Tensor],
    *,
    steps: int,
    lr: float,
    ema: float,
    checkpoint: Path,
    title: str,
    progress: ProgressArgument,
) -> Trained:
    """Train a network in place with AdamW, and average its weights.

    The learning rate rises over the first twentieth of the steps and falls to 0 along a cosine.
    Every so often everything is written to ``checkpoint``, from which a later call goes on with the
    same numbers; the caller removes the file when what came out of the training is safe.

    Parameters
    ----------
    model : nn.Module
        Stays in the mode that it has.
    loss_of : callable
        From the network and the number of a step, from 0, to a loss. It may depend on nothing else.
    steps : int
    lr, ema : float
    checkpoint : Path
    title : str
        What progress calls the work.
    progress : bool or callable or None

    Raises
    ------
    ValueError
        If the loss is not finite any more.
    """
    trained = Trained(copy.deepcopy(model).eval().requires_grad_(False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
    first = _resume(checkpoint, model, optimizer, trained)
    began = last_saved = time.monotonic()
    before = trained.seconds
    every = max(1, steps // _CURVE_POINTS)
    total, counted = 0.0, 0
    with report_progress(progress, title, "steps") as record:
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * _schedule(step, steps)
            loss = loss_of(model, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            _average(trained.averaged, model, min(ema, (step + 1) / (step + 10)))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise ValueError(
                    f"the loss is {value} in step {step} of {steps} with a learning rate of "
                    f"{lr * _schedule(step, steps):.6g}; the training has diverged"
                )
            total, counted = total + value, counted + 1
            if (step + 1) % every == 0 or step + 1 == steps:
                trained.losses.append((step + 1, total / counted))
                total, counted = 0.0, 0
            now = time.monotonic()
            trained.seconds = before + now - began
            if counted == 0 and now - last_saved > _SECONDS_BETWEEN_CHECKPOINTS:
                _save(checkpoint, step + 1, model, optimizer, trained)
                last_saved = now
            if record is not None:
                record(step + 1 - first, steps - first, now - began, f"loss {value:.4f}")
    _save(checkpoint, steps, model, optimizer, trained)
    return trained


def batch_rows(n: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """The rows of a step: a pass over a shuffled data set, then the next one.

    Parameters
    ----------
    n : int
        Rows of the data set.
    batch_size : int
        At most ``n`` rows are given.
    seed, step : int
    """
    size = min(batch_size, n)
    per_epoch = n // size
    epoch, place = divmod(step, per_epoch)
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)
    return order[place * size : (place + 1) * size]


def _schedule(step: int, steps: int) -> float:
    warmup = max(1, int(steps * _WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    mine: list[Tensor] = list(averaged.parameters())
    theirs: list[Tensor] = list(model.parameters())
    torch._foreach_lerp_(mine, theirs, 1 - decay)
    for buffer, source in zip(averaged.buffers(), model.buffers(), strict=True):
        buffer.copy_(source)


def _save(
    path: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, trained: Trained
) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "averaged": trained.averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": trained.losses,
        "seconds": trained.seconds,
    }
    with replaced_when_complete(path) as file:
        torch.save(state, file)


def _resume(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, trained: Trained
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    trained.averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    trained.losses = [(int(step), float(loss)) for step, loss in state["losses"]]
    trained.seconds = float(state["seconds"])
    return int(state["step"])
