# SPDX-License-Identifier: Apache-2.0
"""Shuffled patches: every order equally likely, by key, and nothing is lost or doubled."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from ddkern.augment import DrawKey, PatchDraw, ShufflePatches, operations
from ddkern.augment.draws import Purpose
from reference import augment as twin


def batch(n: int = 6, size: tuple[int, int] = (7, 10)) -> Any:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 3, *size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("factor", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("size", [(7, 10), (14, 7)])
def test_against_strips_cut_and_joined(factor: int, size: tuple[int, int]) -> None:
    x = batch(size=size)
    draw = ShufflePatches(factor).draw(DrawKey(3), 6, size)
    assert draw.rows.shape == draw.columns.shape == (6, factor)
    got = draw.apply(x)
    np.testing.assert_array_equal(got, twin.shuffle_patches(x.numpy(), draw.rows, draw.columns))
    # No pixel is lost or doubled.
    assert torch.equal(got.flatten(2).sort().values, x.flatten(2).sort().values)


def test_four_patches_by_hand() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    got = operations.shuffle_patches(x, [[1, 0]], [[0, 1]])
    assert got[0, 0, :, 0].tolist() == [8, 12, 0, 4]
    got = operations.shuffle_patches(x, [[0, 1]], [[1, 0]])
    assert got[0, 0, 0].tolist() == [2, 3, 0, 1]


def test_three_strips_by_hand_with_a_longer_last_one() -> None:
    x = torch.arange(7.0).reshape(1, 1, 1, 7)
    got = operations.shuffle_patches(x, [[0]], [[2, 0, 1]])
    assert got[0, 0, 0].tolist() == [4, 5, 6, 0, 1, 2, 3]
    got = operations.shuffle_patches(x, [[0]], [[1, 2, 0]])
    assert got[0, 0, 0].tolist() == [2, 3, 4, 5, 6, 0, 1]


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_orders_are_those_of_the_words(factor: int) -> None:
    draw = ShufflePatches(factor).draw(DrawKey(2**40, 3, 1), 20, (12, 12))
    for purpose, orders in ((Purpose.PATCH_ROWS, draw.rows), (Purpose.PATCH_COLUMNS, draw.columns)):
        for sample in range(20):
            words = [
                word
                for block in range(2)
                for word in twin.uniform(2**40, 3, 1, int(purpose), sample, block)
            ][:factor]
            assert [words[strip] for strip in orders[sample]] == sorted(words)


def test_factor_of_one_changes_nothing() -> None:
    x = batch()
    assert torch.equal(ShufflePatches(1)(x, DrawKey(0)), x)


def test_all_orders_are_equally_likely() -> None:
    draw = ShufflePatches(3).draw(DrawKey(7), 7200, (9, 9))
    both = np.concatenate([draw.rows, draw.columns], axis=1)
    orders, counts = np.unique(both, axis=0, return_counts=True)
    assert len(orders) == 36
    # Chi-square with 35 degrees of freedom; 66.6 is exceeded once in a thousand.
    assert ((counts - 200) ** 2 / 200).sum() < 66.6


@pytest.mark.parametrize("siamese", [False, True])
def test_the_same_key_repeats_a_call(siamese: bool) -> None:
    shuffle = ShufflePatches(4)
    keys = [DrawKey(5, iteration, step) for iteration in range(4) for step in range(3)]
    first = [shuffle(batch(), key, siamese=siamese) for key in keys]
    for key, expected in reversed(list(zip(keys, first, strict=True))):
        assert torch.equal(shuffle(batch(), key, siamese=siamese), expected)
    assert len({x.numpy().tobytes() for x in first}) == len(keys)


def test_siamese_batches_share_one_draw() -> None:
    for step in range(10):
        key = DrawKey(2, 0, step)
        draw = ShufflePatches(3).draw(key, 6, (7, 10), siamese=True)
        assert draw.rows.shape == draw.columns.shape == (1, 3)
        both = [ShufflePatches(3)(batch()[:n], key, siamese=True) for n in (6, 2)]
        assert torch.equal(both[0][:2], both[1])
        each = PatchDraw((7, 10), draw.rows.repeat(6, 0), draw.columns.repeat(6, 0))
        assert torch.equal(each.apply(batch()), both[0])


def test_images_of_one_batch_differ_unless_siamese() -> None:
    draw = ShufflePatches(3).draw(DrawKey(0), 30, (9, 9))
    assert len(np.unique(draw.rows, axis=0)) > 3


def test_parts_of_a_batch_are_treated_as_the_whole() -> None:
    x, ids = batch(), np.array([4, 0, 17, 2, 9, 3])
    for step in range(10):
        key = DrawKey(0, 0, step)
        whole = ShufflePatches(3)(x, key, samples=ids)
        parts = [ShufflePatches(3)(x[p], key, samples=ids[p]) for p in (slice(0, 4), slice(4, 6))]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("siamese", [False, True])
def test_derivatives_of_first_and_second_order(siamese: bool) -> None:
    x = batch(2, (4, 5)).requires_grad_()
    draw = ShufflePatches(2).draw(DrawKey(1), 2, (4, 5), siamese=siamese)
    assert torch.autograd.gradcheck(draw.apply, x)
    assert torch.autograd.gradgradcheck(lambda im: draw.apply(im) ** 2, x)


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (0, ValueError, "^factor=0; it must be an integer of at least 1"),
        (2.0, TypeError, "^factor=2.0 is a float"),
        (True, TypeError, "^factor=True is a bool"),
    ],
)
def test_factor_is_checked(factor: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ShufflePatches(factor)


def test_arguments_of_draws_are_checked() -> None:
    shuffle = ShufflePatches(4)
    with pytest.raises(TypeError, match="key is a int; it must be a DrawKey"):
        shuffle.draw(0, 6, (8, 8))
    with pytest.raises(ValueError, match=r"image_size=\(8, 3\); neither side .* the 4 patches"):
        shuffle(batch(6, (8, 3)), DrawKey(0))
    with pytest.raises(ValueError, match="samples cannot be combined with siamese"):
        shuffle(batch(), DrawKey(0), siamese=True, samples=np.arange(6))
    with pytest.raises(ValueError, match="n_samples=0"):
        shuffle.draw(DrawKey(0), 0, (8, 8))


def test_draw_is_for_images_of_one_size() -> None:
    draw = ShufflePatches().draw(DrawKey(0), 6, (7, 10))
    with pytest.raises(ValueError, match=r"made for images of height and width \(7, 10\)"):
        draw.apply(batch(6, (10, 7)))
    with pytest.raises(ValueError, match=r"rows has shape \(6, 2\).*a row for each image"):
        draw.apply(batch(5))


def test_records_are_frozen() -> None:
    shuffle = ShufflePatches()
    for record, name in ((shuffle, "factor"), (shuffle.draw(DrawKey(0), 2, (8, 8)), "rows")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)
