# SPDX-License-Identifier: Apache-2.0
"""Where the logits come from that a student is taught by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddkern.files import replaced_when_complete
from ddkern.training import Precision, Recipe, TrainingSet
from ddkern.training.loop import Batch, augmented_batches
from ddkern.training.precision import autocast
from ddkern.training.testing import logits_of

__all__ = ["OnlineTeacher", "StoredLabels", "label_storage_bytes", "relabel"]


class OnlineTeacher:
    """A network that labels every batch while the student is trained, in evaluation mode.

    Parameters
    ----------
    model : nn.Module
        On the device of the batches. Its mode is set, its weights are not touched.
    precision : {"float32", "bfloat16"}
    """

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        self._model = model.eval()
        self._precision = precision

    def __call__(self, batch: Batch, epoch: int) -> Tensor:  # noqa: ARG002
        """Logits of the batch as the student sees it."""
        with torch.no_grad(), autocast(self._precision, batch.inputs.device):
            return logits_of(self._model, batch.inputs)


class StoredLabels:
    """Logits that were computed once for every batch of every epoch.

    Parameters
    ----------
    logits : ndarray of float16, shape (epochs, n, n_classes)
        By position in the order of the epoch; may be a memory map.
    """

    def __init__(self, logits: NDArray[np.float16]) -> None:
        self._logits = logits

    def __call__(self, batch: Batch, epoch: int) -> Tensor:
        """Logits of the batch, whose images come in the same order and augmentation again."""
        part = self._logits[epoch, batch.first : batch.first + len(batch.inputs)]
        return torch.from_numpy(part.astype(np.float32)).to(batch.inputs.device)


def label_storage_bytes(epochs: int, n: int, n_classes: int) -> int:
    """What stored labels take: the part of a distilled set that tables of sizes leave out."""
    return 2 * epochs * n * n_classes


def relabel(
    data: TrainingSet,
    recipe: Recipe,
    seed: int,
    teacher: OnlineTeacher,
    folder: Path | None = None,
    on_epoch: Callable[[int], object] | None = None,
) -> StoredLabels:
    """Let a teacher label every augmented batch of every epoch.

    Parameters
    ----------
    data : TrainingSet
    recipe : Recipe
    seed : int
        Of orders and augmentations, for the teacher and all its students.
    teacher : OnlineTeacher
    folder : Path, optional
        Keeps one file an epoch, and a second call goes on from those that are there. In memory by
        default.
    on_epoch : callable, optional
        Called with the number of epochs that are labelled.
    """
    logits = np.empty((recipe.epochs, len(data), data.n_classes), np.float16)
    for epoch in range(recipe.epochs):
        path = None if folder is None else folder / f"labels-{epoch:04d}.npy"
        if path is not None and path.exists():
            logits[epoch] = np.load(path)
        else:
            for batch in augmented_batches(data, recipe, seed, epoch):
                last = batch.first + len(batch.inputs)
                logits[epoch, batch.first : last] = teacher(batch, epoch).cpu().numpy()
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with replaced_when_complete(path) as file:
                    np.save(file, logits[epoch])
        if on_epoch is not None:
            on_epoch(epoch + 1)
    return StoredLabels(logits)
