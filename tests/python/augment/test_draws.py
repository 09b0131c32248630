# SPDX-License-Identifier: Apache-2.0
"""Random numbers by counter: published vectors, the scalar twin, ranges of the keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from ddkern.augment import DrawKey
from ddkern.augment.draws import Purpose, as_samples, philox, uniform_integers
from reference import augment as twin
from reference import canonical

# Counter, key and output of the known answers that the authors publish for philox4x32, 10 rounds.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    words = philox(np.array(counter, np.uint32)[:, None], key)
    assert words.dtype == np.uint32
    assert tuple(words[:, 0].tolist()) == expected


def test_many_counters_at_once_are_those_one_by_one() -> None:
    counters = np.random.default_rng(0).integers(0, 1 << 32, (4, 50), np.uint32)
    together = philox(counters, (123, 456))
    for column in range(50):
        one: Any = tuple(counters[:, column].tolist())
        assert tuple(together[:, column].tolist()) == canonical.philox(one, (123, 456))


def test_counter_holds_sample_step_iteration_purpose() -> None:
    key = DrawKey(seed=2**40 + 7, iteration=2**31 + 5, step=11)
    got = key.uniform(Purpose.SCALE, np.array([0, 3, 2**32 - 1]))
    for column, sample in enumerate((0, 3, 2**32 - 1)):
        expected = twin.uniform(2**40 + 7, 2**31 + 5, 11, int(Purpose.SCALE), sample)
        assert got[:, column].tolist() == expected


def test_blocks_have_the_upper_half_of_the_last_word() -> None:
    key, samples = DrawKey(5, 6, 7), np.array([3])
    for block in (0, 1, 9, 2**16 - 1):
        expected = twin.uniform(5, 6, 7, int(Purpose.PATCH_ROWS), 3, block)
        assert key.uniform(Purpose.PATCH_ROWS, samples, block)[:, 0].tolist() == expected
        words = key.words(Purpose.PATCH_ROWS, samples, block)[:, 0]
        assert words.tolist() == [number * 2**32 for number in expected]


def test_numbers_of_purposes_are_part_of_the_definition() -> None:
    names = (
        *("OPERATION", "COLOR", "CROP", "CUTOUT", "FLIP", "SCALE", "ROTATE"),
        *("MIX_SHARE", "MIX_BOX", "MIX_PARTNER"),
        *("RESIZED_CROP", "RESIZED_CROP_FLIP", "PATCH_ROWS", "PATCH_COLUMNS"),
    )
    assert {purpose.name: int(purpose) for purpose in Purpose} == {
        name: number for number, name in enumerate(names)
    }


def test_every_part_of_a_key_counts() -> None:
    keys = [DrawKey(0), DrawKey(1), DrawKey(1 << 32), DrawKey(0, 1), DrawKey(0, 0, 1)]
    drawn = {tuple(key.words(p, np.array([0]))[:, 0]) for key in keys for p in Purpose}
    assert len(drawn) == len(keys) * len(Purpose)


def test_key_holds_plain_integers() -> None:
    key = DrawKey(np.uint64(2**64 - 1), np.int32(4), np.int64(5))
    assert key == DrawKey(2**64 - 1, 4, 5)
    assert {type(value) for value in (key.seed, key.iteration, key.step)} == {int}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"seed": 1 << 64}, ValueError, r"seed=18446744073709551616"),
        ({"seed": 0.5}, TypeError, "seed=0.5 is a float"),
        ({"seed": 0, "iteration": -1}, ValueError, "iteration=-1"),
        ({"seed": 0, "iteration": 1 << 32}, ValueError, "iteration=4294967296"),
        ({"seed": 0, "step": True}, TypeError, "step=True is a bool"),
    ],
)
def test_keys_out_of_range(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DrawKey(**arguments)


def test_integers_reach_both_ends_and_no_further() -> None:
    assert uniform_integers(np.array([0.0, 0.249, 0.25, 1 - 2.0**-32]), 4).tolist() == [0, 0, 1, 3]


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([0.0, 1.0], TypeError, "samples has dtype float64"),
        ([0, 1, 2], ValueError, r"samples has shape \(3,\)"),
        ([0, -1], ValueError, "samples holds -1"),
        ([0, 1 << 32], ValueError, "samples holds 4294967296"),
    ],
)
def test_samples_are_checked(samples: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_samples(samples, 2)
