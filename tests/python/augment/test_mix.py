# SPDX-License-Identifier: Apache-2.0
"""Cutmix and mixup: images, labels and weights are mixed alike, and draws have their law."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from ddkern.augment import CutMix, DrawKey, MixUp

N, SIZE = 7, (12, 9)


def batch() -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(N, 3, *SIZE, generator=generator, dtype=torch.float64)
    labels = torch.rand(N, 4, generator=generator, dtype=torch.float64).softmax(1)
    weights = torch.rand(N, generator=generator, dtype=torch.float64) + 0.5
    return images, labels, weights


def keys(count: int) -> list[DrawKey]:
    return [DrawKey(8, iteration) for iteration in range(count)]


def test_mixup_by_hand() -> None:
    images, labels, weights = batch()
    for key in keys(5):
        mixed = MixUp()(images, key, labels, weights)
        share, partner = mixed.draw.share, mixed.draw.partner
        assert 0 < share < 1
        for i, j in enumerate(partner):
            for got, given in (
                (mixed.images, images),
                (mixed.labels, labels),
                (mixed.weights, weights),
            ):
                expected = share * given[i] + (1 - share) * given[int(j)]
                torch.testing.assert_close(got[i], expected, rtol=0, atol=1e-14)


def test_cutmix_by_hand() -> None:
    images, labels, weights = batch()
    for key in keys(20):
        mixed = CutMix()(images, key, labels, weights)
        draw = mixed.draw
        top, bottom, left, right = draw.box
        kept = 0
        for row, column in np.ndindex(*SIZE):
            inside = top <= row < bottom and left <= column < right
            kept += not inside
            source = draw.partner if inside else np.arange(N)
            got, expected = mixed.images[:, :, row, column], images[source, :, row, column]
            assert torch.equal(got, expected)
        share = kept / (SIZE[0] * SIZE[1])
        assert draw.share == pytest.approx(share, abs=1e-15)
        for got, given in ((mixed.labels, labels), (mixed.weights, weights)):
            expected = share * given + (1 - share) * given[draw.partner]
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("mix", [CutMix(), MixUp()])
def test_mass_of_weights_and_labels_is_kept(mix: Any) -> None:
    images, labels, weights = batch()
    for key in keys(10):
        mixed = mix(images, key, labels, weights)
        assert float(mixed.weights.sum()) == pytest.approx(float(weights.sum()), rel=1e-14)
        torch.testing.assert_close(mixed.labels.sum(1), torch.ones(N).double())


def test_rectangle_has_the_proportions_of_the_image() -> None:
    for key in keys(200):
        top, bottom, left, right = CutMix().draw(key, 2, (40, 20)).box
        if top > 0 and bottom < 40 and left > 0 and right < 20:
            # Whole and even numbers of pixels, each rounded down: two rows, one of them doubled.
            assert abs((bottom - top) - 2 * (right - left)) <= 4


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 50.0])
def test_mixup_share_follows_the_beta_distribution(alpha: float) -> None:
    n = 1000
    shares = np.array([MixUp(alpha=alpha).draw(DrawKey(1, i), 1).share for i in range(n)])
    variance = 1 / (4 * (2 * alpha + 1))
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    # Four standard deviations of the mean, and of the second moment about 1/2.
    assert abs(shares.mean() - 0.5) < 4 * math.sqrt(variance / n)
    spread = ((shares - 0.5) ** 2).mean()
    assert abs(spread - variance) < 4 * math.sqrt((fourth - variance**2) / n)


@pytest.mark.parametrize("alpha", [1e-3, 1e-6, 1e4])
def test_extreme_alpha_gives_numbers(alpha: float) -> None:
    for i in range(20):
        share = MixUp(alpha=alpha).draw(DrawKey(1, i), 1).share
        assert 0 <= share <= 1


def test_area_of_cutmix_follows_its_share() -> None:
    # Without clipping the cut area would be uniform with mean 1/2; clipping at the edge takes, for
    # a centre uniform on the side, c - c**2 / 4 of a side c = sqrt(1 - lambda): mean area 0.3208.
    shares = [CutMix().draw(DrawKey(2, i), 1, (200, 200)).share for i in range(1000)]
    c = np.sqrt((np.arange(100000) + 0.5) / 100000)
    expected = ((c - c * c / 4) ** 2).mean()
    assert abs((1 - np.mean(shares)) - expected) < 4 * 0.25 / math.sqrt(1000) + 0.01


def test_partners_are_any_permutation() -> None:
    seen = set()
    for key in keys(600):
        partner = MixUp().draw(key, 3).partner
        assert sorted(partner.tolist()) == [0, 1, 2]
        seen.add(tuple(partner.tolist()))
    assert len(seen) == 6


@pytest.mark.parametrize("mix", [CutMix(probability=0.3), MixUp(probability=0.3)])
def test_probability_of_mixing(mix: Any) -> None:
    images, labels, weights = batch()
    untouched = 0
    for key in keys(400):
        mixed = mix(images, key, labels, weights)
        if mixed.draw.share == 1.0:
            untouched += 1
            assert torch.equal(mixed.images, images)
            assert torch.equal(mixed.labels, labels)
            assert torch.equal(mixed.weights, weights)
    assert abs(untouched / 400 - 0.7) < 4 * math.sqrt(0.3 * 0.7 / 400)


@pytest.mark.parametrize("mix", [CutMix(), MixUp()])
def test_the_same_key_repeats_a_call(mix: Any) -> None:
    images, labels, _ = batch()
    first = [mix(images, key, labels) for key in keys(6)]
    for key, expected in zip(reversed(keys(6)), reversed(first), strict=True):
        again = mix(images, key, labels)
        assert torch.equal(again.images, expected.images)
        assert torch.equal(again.labels, expected.labels)
    # A rectangle may be empty.
    assert len({x.images.numpy().tobytes() for x in first}) >= 4


@pytest.mark.parametrize("mix", [CutMix(), MixUp()])
def test_gradients_reach_images_labels_and_weights(mix: Any) -> None:
    images, labels, weights = batch()
    given = [t.requires_grad_() for t in (images[:4, :1, :4, :5].clone(), labels[:4], weights[:4])]

    def mixed(images: Any, labels: Any, weights: Any) -> tuple[Any, ...]:
        out = mix(images, DrawKey(3), labels, weights)
        return out.images, out.labels, out.weights

    assert torch.autograd.gradcheck(mixed, given)


def test_labels_and_weights_are_optional() -> None:
    mixed = CutMix()(batch()[0], DrawKey(0))
    assert mixed.labels is None
    assert mixed.weights is None


@pytest.mark.parametrize(
    ("part", "value", "error", "message"),
    [
        ("labels", torch.arange(N), TypeError, "labels has dtype torch.int64.*one_hot"),
        ("labels", torch.rand(N), ValueError, r"labels has shape \(7,\)"),
        ("labels", torch.rand(N + 1, 4), ValueError, r"labels has shape \(8, 4\); .* of 7"),
        ("labels", [[1.0]], TypeError, "labels is a list"),
        ("weights", torch.ones(N, dtype=torch.int64), TypeError, "weights has dtype torch.int64"),
        ("weights", torch.rand(N, 1), ValueError, r"weights has shape \(7, 1\)"),
        ("weights", torch.rand(N - 1), ValueError, r"weights has shape \(6,\); .* of 7"),
        ("weights", 1.0, TypeError, "weights is a float"),
    ],
)
@pytest.mark.parametrize("mix", [CutMix(), MixUp()])
def test_inputs_are_checked(
    mix: Any, part: str, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mix(batch()[0], DrawKey(0), **{part: value})


@pytest.mark.parametrize("record", [CutMix, MixUp])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": 0}, ValueError, "alpha=0; it must be positive"),
        ({"alpha": -1}, ValueError, "alpha=-1"),
        ({"alpha": None}, TypeError, "alpha=None is a NoneType"),
        ({"probability": 1.1}, ValueError, "probability=1.1"),
    ],
)
def test_options_are_checked(
    record: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        record(**options)


def test_draws_are_checked() -> None:
    with pytest.raises(TypeError, match="key is a int"):
        MixUp().draw(0, 3)
    with pytest.raises(ValueError, match=r"image_size=\(3, 32, 32\); it must be a side or"):
        CutMix().draw(DrawKey(0), 3, (3, 32, 32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"image_size\[0\]=0"):
        CutMix().draw(DrawKey(0), 3, (0, 4))
    with pytest.raises(ValueError, match=r"images has shape .* for a batch of 7"):
        MixUp().draw(DrawKey(0), N).mix_images(batch()[0][:3])
