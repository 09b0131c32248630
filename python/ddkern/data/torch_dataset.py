# SPDX-License-Identifier: Apache-2.0
"""A distilled set for torch's ``DataLoader``. Importing this module needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from ddkern.data.distilled_set import DistilledSet

__all__ = ["WeightedImages"]

Item = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class WeightedImages(Dataset[Item]):
    """Items (input, label, weight) of a distilled set.

    The input is float32, (channels, height, width), decoded and normalised when it is asked for;
    the label an int64 scalar, or float32 (n_classes,) where soft labels are wanted; the weight a
    float32 scalar. All are copies.

    Parameters
    ----------
    distilled : DistilledSet
    soft : bool
        Whether labels are the soft ones.
    """

    def __init__(self, distilled: DistilledSet, *, soft: bool) -> None:
        if soft and distilled.soft_labels is None:
            raise ValueError("soft=True, but the set has no soft labels")
        self.distilled = distilled
        self.labels = (
            torch.tensor(distilled.soft_labels, dtype=torch.float32)
            if soft
            else torch.tensor(distilled.labels)
        )
        self.weight = torch.tensor(distilled.sample_weight, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.distilled)

    def __getitem__(self, index: int) -> Item:
        # Iteration without a DataLoader ends where this raises IndexError, which labels do.
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Several items; a ``DataLoader`` asks for a batch in this way, decoded at once."""
        labels, weight = self.labels[list(indices)], self.weight[list(indices)]
        inputs = torch.tensor(self.distilled.inputs(list(indices)))
        return [(inputs[i], labels[i].clone(), weight[i].clone()) for i in range(len(indices))]
