# SPDX-License-Identifier: Apache-2.0
"""Devices and precisions by name, and how accuracy is measured."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from ddkern.data import Normalization  # noqa: E402
from ddkern.training import (  # noqa: E402
    PixelImages,
    choose_device,
    choose_precision,
    measure_accuracy,
)

CPU = torch.device("cpu")


def test_unknown_device_and_precision_are_named() -> None:
    with pytest.raises(ValueError, match="device='abacus' cannot be used"):
        choose_device("abacus")
    with pytest.raises(ValueError, match="precision='half'.*'bfloat16'"):
        choose_precision("half", CPU)


def test_given_precision_is_kept_and_auto_is_one_of_them() -> None:
    assert choose_precision("float32", CPU) == "float32"
    assert choose_precision("bfloat16", CPU) == "bfloat16"
    assert choose_precision("auto", CPU) in ("float32", "bfloat16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_cuda_without_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match="device='cuda' cannot be used"):
        choose_device("cuda")


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_accuracy_is_the_share_of_right_answers(batch_size: int) -> None:
    pixels = np.zeros((7, 1, 2, 2), np.uint8)
    pixels[:, 0, 0, 0] = 255 * (np.arange(7) % 2)
    labels = torch.tensor([0, 1, 0, 1, 0, 0, 1])

    class Bright(nn.Module):
        def forward(self, images):
            assert not self.training
            return torch.stack([0.5 - images[:, 0, 0, 0], images[:, 0, 0, 0] - 0.5], 1)

    net = Bright().train()
    images = PixelImages(pixels, Normalization.identity(1), CPU)
    found = measure_accuracy(net, images, labels, batch_size=batch_size)
    assert found == pytest.approx(5 / 7)
    assert net.training


@pytest.mark.parametrize(
    ("rank", "expected"), [(None, "cuda"), ("0", "cuda:0"), ("3", "cuda:1"), ("x", "cuda")]
)
def test_processes_of_torchrun_have_a_device_each(
    rank: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(choose_device("auto")) == expected
    assert choose_device("cpu") == CPU
