# SPDX-License-Identifier: Apache-2.0
"""Noise is a function of seed, id and purpose, and standard normal."""

from __future__ import annotations

import numpy as np
import pytest

from ddkern.latents.noise import Purpose, draw_normal, draw_words
from helpers.bits import assert_same_array_bits

IDS = np.array([3, 0, 2**63 - 1, 3, 70000])


@pytest.mark.parametrize("shape", [(4, 8, 8), (3,), (1,), (5, 3)])
def test_noise_of_an_image_does_not_depend_on_the_others(shape: tuple[int, ...]) -> None:
    together = draw_normal(7, IDS, Purpose.DIFFUSION, shape)
    assert together.shape == (5, *shape)
    assert together.dtype == np.float32
    for row in range(5):
        alone = draw_normal(7, IDS[row : row + 1], Purpose.DIFFUSION, shape)
        assert_same_array_bits(alone[0], together[row], "noise")
    backwards = draw_normal(7, IDS[::-1], Purpose.DIFFUSION, shape)
    assert_same_array_bits(backwards[::-1], together, "noise")


def test_no_images() -> None:
    assert draw_normal(0, IDS[:0], Purpose.DIFFUSION, (4, 2)).shape == (0, 4, 2)


def test_seed_id_and_purpose_count() -> None:
    draws = [
        draw_normal(seed, np.array([key]), purpose, (64,)).tobytes()
        for seed in (0, 1, 2**64 - 1)
        for key in (0, 1, 2**40)
        for purpose in Purpose
    ]
    assert len(set(draws)) == 27


def _philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox-4x64-10 in plain integers (J. K. Salmon et al., SC 2011)."""
    mask = 2**64 - 1
    for turn in range(10):
        high0, low0 = divmod(counter[0] * 0xD2E7470EE14C6C93, 2**64)
        high1, low1 = divmod(counter[2] * 0xCA5A826395121157, 2**64)
        round_key = [
            (word + turn * step) & mask
            for word, step in zip(key, (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B), strict=True)
        ]
        counter = [high1 ^ counter[1] ^ round_key[0], low1, high0 ^ counter[3] ^ round_key[1], low0]
    return counter


@pytest.mark.parametrize(("seed", "key"), [(5, 9), (2**64 - 1, 2**63 - 1), (0, 0)])
@pytest.mark.parametrize("purpose", Purpose)
def test_words_are_those_of_philox(seed: int, key: int, purpose: Purpose) -> None:
    words = draw_words(seed, np.array([key]), purpose, 6)[0]
    # numpy adds one to the counter before it computes a block.
    first, second = (_philox([block, 0, 0, int(purpose)], [seed, key]) for block in (1, 2))
    assert words.tolist() == first + second[:2]


def test_numbers_are_standard_normal() -> None:
    values = draw_normal(1, np.arange(1000), Purpose.POSTERIOR, (401,)).astype(np.float64)
    n = values.size
    assert abs(values.mean()) < 4 / np.sqrt(n)
    assert abs((values**2).mean() - 1) < 4 * np.sqrt(2 / n)
    assert abs((values**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert abs((values**3).mean()) < 4 * np.sqrt(15 / n)
    inside = (np.abs(values) < 1).mean()
    assert abs(inside - 0.6826895) < 4 * np.sqrt(0.68 * 0.32 / n)
    # Pairs of Box and Muller, values beside each other and images are uncorrelated.
    pairs = (values[:, :200] * values[:, 201:]).mean(axis=None)
    beside = (values[:, :-1] * values[:, 1:]).mean(axis=None)
    images = (values[:-1] * values[1:]).mean(axis=None)
    assert max(map(abs, (pairs, beside, images))) < 4 / np.sqrt(n / 2)


def test_odd_sizes_are_cut_from_even_ones() -> None:
    # Cosines come first, so a size has fewer sines than the next one and none of another pair.
    odd = draw_normal(1, IDS, Purpose.POSTERIOR, (5,))
    even = draw_normal(1, IDS, Purpose.POSTERIOR, (6,))
    assert_same_array_bits(odd, even[:, :5], "noise")
