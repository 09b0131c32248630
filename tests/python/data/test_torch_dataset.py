# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch.utils.data import DataLoader

from ddkern import UnsupportedError
from ddkern.data import DistilledSet
from helpers.distilled import make_set


@pytest.mark.parametrize("kind", ["floats", "pixels", "zca", "parts"])
@pytest.mark.parametrize("soft", [False, True])
def test_items(kind: str, soft: bool) -> None:
    made = make_set(kind)
    data = made.as_torch_dataset(soft=soft)
    assert len(data) == len(made)
    for row in (0, len(made) - 1):
        image, label, weight = data[row]
        assert (image.dtype, weight.dtype) == (torch.float32, torch.float32)
        np.testing.assert_array_equal(image, made.inputs([row])[0])
        assert weight.item() == pytest.approx(made.sample_weight[row], rel=1e-7)
        if soft:
            np.testing.assert_array_equal(label, made.soft_labels[row])
        else:
            assert label.dtype == torch.int64
            assert label.item() == made.labels[row]


def test_batches_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_set("pixels")
    asked = []
    original = DistilledSet.inputs
    monkeypatch.setattr(
        DistilledSet, "inputs", lambda self, rows: asked.append(len(rows)) or original(self, rows)
    )
    batches = list(DataLoader(made.as_torch_dataset(soft=False), batch_size=4))
    assert asked == [4, 2]
    np.testing.assert_array_equal(torch.cat([labels for _, labels, _ in batches]), made.labels)


def test_soft_labels_are_the_default_where_there_are_any() -> None:
    assert make_set().as_torch_dataset()[0][1].shape == (3,)
    hard = make_set(soft_labels=None)
    assert hard.as_torch_dataset()[0][1].shape == ()
    with pytest.raises(ValueError, match="soft=True, but the set has no soft labels"):
        hard.as_torch_dataset(soft=True)


def test_iteration_ends_and_items_are_copies() -> None:
    made = make_set()
    data = made.as_torch_dataset(soft=False)
    before = made.inputs().copy()
    for image, label, weight in data:
        image.zero_()
        label.zero_()
        weight.zero_()
    np.testing.assert_array_equal(made.inputs(), before)
    assert data[0][1].item() == made.labels[0]
    assert len(list(data)) == 6


def test_torch_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_set()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnsupportedError, match="a torch Dataset needs the package torch"):
        made.as_torch_dataset()
