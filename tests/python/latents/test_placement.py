# SPDX-License-Identifier: Apache-2.0
"""Types, free memory and the number of images at once."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from ddkern.backend import available_memory  # noqa: E402
from ddkern.latents.placement import (  # noqa: E402
    bytes_of_maps,
    choose_batch_size,
    choose_dtype,
    free_bytes,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_types_by_name(name: str, device: torch.device) -> None:
    assert choose_dtype(name, device) == getattr(torch, name)


def test_automatic_type() -> None:
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("auto", GPU) == torch.float16


def test_bad_type() -> None:
    with pytest.raises(ValueError, match="dtype='float64'; it must be one of 'auto', 'float32', "):
        choose_dtype("float64", CPU)
    with pytest.raises(TypeError, match="dtype is a dtype; it must be one of"):
        choose_dtype(torch.float32, CPU)


@pytest.mark.parametrize(
    ("free", "expected"),
    [(0, 1), (19, 1), (20, 1), (40, 2), (79, 2), (80, 4), (2559, 64), (5120, 256), (10**12, 256)],
)
def test_batch_is_the_largest_power_of_two_in_half_of_the_memory(free: int, expected: int) -> None:
    assert choose_batch_size(None, 10, free) == expected


def test_given_batch_size() -> None:
    assert choose_batch_size(1000, 10, 0) == 1000
    with pytest.raises(ValueError, match="batch_size=0; it must be an integer of at least 1"):
        choose_batch_size(0, 10, 10**9)


def test_memory() -> None:
    assert bytes_of_maps(100, 3, torch.float32) == 1200
    assert bytes_of_maps(100, 3, torch.bfloat16) == 600
    assert free_bytes(CPU) == pytest.approx(available_memory(), rel=0.2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_memory_of_a_gpu() -> None:
    before = free_bytes(GPU)
    held = torch.empty(1 << 28, dtype=torch.uint8, device=GPU)
    assert before - free_bytes(GPU) == pytest.approx(1 << 28, rel=0.2)
    del held
    assert free_bytes(GPU) == pytest.approx(before, abs=1 << 26)
