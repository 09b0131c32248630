# SPDX-License-Identifier: Apache-2.0
"""Random resized crops: what is drawn, how it is replayed, and what resizing does at edges."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional

from ddkern.augment import CropDraw, DrawKey, RandomResizedCrop, operations
from ddkern.augment.draws import Purpose
from reference import augment as twin

# Whole, single pixels, corners, a row, a column, something in the middle; for images of 7 by 9.
BOXES = np.array(
    [[0, 7, 0, 9], [6, 7, 8, 9], [0, 1, 0, 1], [2, 3, 0, 9], [0, 7, 4, 5], [1, 6, 3, 7]]
)


def batch(n: int = 6, size: tuple[int, int] = (7, 9), dtype: str = "float64") -> Any:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 3, *size, generator=generator, dtype=getattr(torch, dtype))


def cut_and_interpolated(images: Any, boxes: Any, size: tuple[int, int], **options: Any) -> Any:
    """Each box cut out of its image, and resized by torch."""
    resized = [
        functional.interpolate(
            image[None, :, top:bottom, left:right], size, mode="bilinear", **options
        )
        for image, (top, bottom, left, right) in zip(images, boxes.tolist(), strict=True)
    ]
    return torch.cat(resized)


@pytest.mark.parametrize("size", [(7, 9), (5, 4), (16, 16), (1, 1), (1, 20)])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-14), ("float32", 5e-6)])
def test_resizing_is_that_of_torch(size: tuple[int, int], dtype: str, bound: float) -> None:
    x = batch(dtype=dtype)
    expected = cut_and_interpolated(x, BOXES, size, align_corners=False, antialias=False)
    got = operations.resized_crop(x, BOXES, size)
    # Positions are rounded, and numbers of magnitude 3 change by up to 6 from pixel to pixel.
    torch.testing.assert_close(got, expected, rtol=0, atol=bound)


def test_an_antialias_filter_changes_nothing_unless_crops_are_larger() -> None:
    x = batch()
    for size in ((7, 9), (16, 11)):
        filtered = cut_and_interpolated(x, BOXES, size, align_corners=False, antialias=True)
        got = operations.resized_crop(x, BOXES, size)
        torch.testing.assert_close(got, filtered, rtol=0, atol=1e-14)
    filtered = cut_and_interpolated(x, BOXES, (3, 3), align_corners=False, antialias=True)
    assert (operations.resized_crop(x, BOXES, (3, 3)) - filtered).abs().max() > 0.1


@pytest.mark.parametrize("size", [(7, 9), (4, 13)])
def test_resizing_against_loops_over_pixels(size: tuple[int, int]) -> None:
    x = batch()
    expected = twin.resized_crop(x.numpy(), BOXES, size)
    got = operations.resized_crop(x, BOXES, size).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-13)


def test_pixels_beyond_the_box_take_no_part() -> None:
    x = batch(1)
    box = np.array([[2, 5, 3, 8]])
    beyond = torch.full_like(x, 1e6)
    beyond[:, :, 2:5, 3:8] = x[:, :, 2:5, 3:8]
    inside, with_other_surroundings = (
        operations.resized_crop(im, box, (32, 32)) for im in (x, beyond)
    )
    torch.testing.assert_close(inside, with_other_surroundings, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtype_and_memory_of_the_images_are_kept(dtype: str) -> None:
    x = batch(dtype=dtype)
    before = x.clone()
    out = operations.resized_crop(x, BOXES, (12, 5))
    assert out.dtype == x.dtype
    assert torch.equal(x, before)
    exact = operations.resized_crop(x.double(), BOXES, (12, 5))
    assert (out.double() - exact).abs().max() <= torch.finfo(x.dtype).eps * exact.abs().max()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("size", [(3, 8), (10, 4)])
def test_derivatives_of_first_and_second_order(rows: int, size: tuple[int, int]) -> None:
    x = batch(2)[:, :1].requires_grad_()
    draw = CropDraw((7, 9), size, BOXES[-rows:], np.array([True, False])[:rows])
    assert torch.autograd.gradcheck(draw.apply, x)
    # The crop is linear in the images; the square gives it second derivatives.
    assert torch.autograd.gradgradcheck(lambda im: draw.apply(im) ** 2, x)


def test_under_vmap() -> None:
    stacked = torch.stack([batch(), -2 * batch()])

    def loss(x: Any) -> Any:
        return (operations.resized_crop(x, BOXES, (4, 12)) ** 2).sum()

    mapped = torch.func.vmap(torch.func.grad(loss))(stacked)
    for row in range(2):
        torch.testing.assert_close(mapped[row], torch.func.grad(loss)(stacked[row]))


@pytest.mark.parametrize(
    "box", [[-1, 3, 0, 3], [0, 8, 0, 3], [0, 3, 0, 10], [3, 3, 0, 3], [0, 3, 5, 4]]
)
def test_boxes_lie_inside(box: list[int]) -> None:
    boxes = np.array([[0, 7, 0, 9], box])
    with pytest.raises(
        ValueError, match=r"^box holds \[.*inside images of height and width \(7, 9"
    ):
        operations.resized_crop(batch(2), boxes, (4, 4))
    with pytest.raises(ValueError, match=r"box has shape \(2, 4\).*a row for each image"):
        operations.resized_crop(batch(3), boxes, (4, 4))


@pytest.mark.parametrize(
    ("image_size", "scale", "ratio"),
    [
        ((32, 32), (0.08, 1.0), (3 / 4, 4 / 3)),
        ((28, 45), (0.5, 1.0), (3 / 4, 4 / 3)),
        ((9, 40), (0.3, 0.9), (0.5, 2.0)),
        ((40, 9), (0.3, 0.9), (0.5, 2.0)),
        # Too long or less than half a pixel: the central box, cut on one side or on neither.
        ((40, 9), (1.0, 1.0), (0.5, 0.75)),
        ((9, 40), (1.0, 1.0), (0.5, 0.75)),
        ((9, 40), (1e-6, 1e-6), (0.1, 10.0)),
        ((30, 30), (0.002, 0.002), (10.0, 20.0)),
        ((30, 30), (0.002, 0.002), (0.05, 0.1)),
        ((1, 3), (0.9, 0.9), (50.0, 60.0)),
        ((3, 1), (0.9, 0.9), (0.01, 0.02)),
        ((32, 32), (1.0, 1.0), (1.0, 1.0)),
    ],
)
def test_draws_by_hand(
    image_size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    crop = RandomResizedCrop(scale=scale, ratio=ratio, flip=0.3)
    draw = crop.draw(DrawKey(2**63 + 5, 9, 4), 60, image_size)
    for sample in range(60):
        numbers = [
            twin.uniform(2**63 + 5, 9, 4, int(Purpose.RESIZED_CROP), sample, attempt)
            for attempt in range(10)
        ]
        expected = twin.crop_box(numbers, image_size, scale, ratio)
        assert draw.boxes[sample].tolist() == expected
        u = twin.uniform(2**63 + 5, 9, 4, int(Purpose.RESIZED_CROP_FLIP), sample)[0]
        assert draw.flipped[sample] == (u < 0.3)


def test_central_boxes_known_from_torchvision() -> None:
    """What its rule gives for images of 4 by 1 and 1 by 4, worked out by hand."""
    narrow = {"scale": (1.0, 1.0), "ratio": (0.5, 2.0)}
    for size, box in (((40, 10), [10, 30, 0, 10]), ((10, 40), [0, 10, 10, 30])):
        boxes = RandomResizedCrop(**narrow).draw(DrawKey(0), 3, size).boxes
        assert boxes.tolist() == [box] * 3


def test_shares_of_the_area_and_ratios_are_uniform() -> None:
    n, side = 4000, 1000
    # Of these ranges every first attempt fits, so that nothing is preferred.
    crop = RandomResizedCrop(scale=(0.1, 0.5), ratio=(0.5, 2.0))
    boxes = crop.draw(DrawKey(3), n, (side, side)).boxes
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    share = (height * width / side**2 - 0.1) / 0.4
    log_ratio = np.log(width / height) / math.log(4) + 0.5
    row = (boxes[:, 0] + 0.5) / (side - height + 1)
    column = (boxes[:, 2] + 0.5) / (side - width + 1)
    columns = np.stack([share, log_ratio, row, column])
    for unit in np.sort(columns, axis=1):
        # Kolmogorov and Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand; whole pixels of a
        # thousand add less than 0.005.
        assert np.abs(unit - np.arange(n) / n).max() < 1.95 / math.sqrt(n) + 0.005
    correlation = np.corrcoef(columns) - np.eye(4)
    assert np.abs(correlation).max() < 4 / math.sqrt(n)


def test_boxes_reach_every_edge_and_no_further() -> None:
    boxes = RandomResizedCrop().draw(DrawKey(7), 4000, (32, 32)).boxes
    assert boxes.min() == 0
    assert boxes.max(axis=0)[[1, 3]].tolist() == [32, 32]
    assert (boxes[:, 1] > boxes[:, 0]).all()
    assert (boxes[:, 3] > boxes[:, 2]).all()


def test_mirrored_as_often_as_asked() -> None:
    for flip in (0.0, 0.1, 0.5, 1.0):
        flipped = RandomResizedCrop(flip=flip).draw(DrawKey(7), 4000, (8, 8)).flipped
        assert abs(flipped.mean() - flip) <= 4 * math.sqrt(flip * (1 - flip) / 4000)


def test_a_call_crops_then_mirrors() -> None:
    x = batch()
    key = DrawKey(1)
    draw = RandomResizedCrop((5, 8)).draw(key, 6, (7, 9))
    assert len(set(draw.flipped.tolist())) == 2
    expected = twin.flip(twin.resized_crop(x.numpy(), draw.boxes, (5, 8)), draw.flipped)
    np.testing.assert_allclose(RandomResizedCrop((5, 8))(x, key).numpy(), expected, atol=1e-13)


@pytest.mark.parametrize(
    ("size", "expected"), [(None, (7, 9)), (4, (4, 4)), ((3, 11), (3, 11)), ([3, 11], (3, 11))]
)
def test_size_of_the_result(size: Any, expected: tuple[int, int]) -> None:
    assert RandomResizedCrop(size)(batch(), DrawKey(0)).shape == (6, 3, *expected)
    assert RandomResizedCrop(size).draw(DrawKey(0), 6, (7, 9)).size == expected


def test_whole_image_of_its_own_size_stays() -> None:
    x = batch(6, (8, 8))
    crop = RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    torch.testing.assert_close(crop(x, DrawKey(0)), x, rtol=0, atol=1e-14)


@pytest.mark.parametrize("siamese", [False, True])
def test_the_same_key_repeats_a_call(siamese: bool) -> None:
    crop = RandomResizedCrop()
    x = batch(6, (40, 50))
    keys = [DrawKey(5, iteration, step) for iteration in range(4) for step in range(3)]
    first = [crop(x, key, siamese=siamese) for key in keys]
    for key, expected in reversed(list(zip(keys, first, strict=True))):
        assert torch.equal(crop(x, key, siamese=siamese), expected)
    assert len({out.numpy().tobytes() for out in first}) == len(keys)


def test_siamese_batches_share_one_draw() -> None:
    for step in range(10):
        key = DrawKey(2, 0, step)
        draws = [RandomResizedCrop().draw(key, n, (7, 9), siamese=True) for n in (6, 2)]
        assert draws[0].boxes.shape == (1, 4)
        np.testing.assert_array_equal(draws[0].boxes, draws[1].boxes)
        np.testing.assert_array_equal(draws[0].flipped, draws[1].flipped)
        both = [RandomResizedCrop()(batch()[:n], key, siamese=True) for n in (6, 2)]
        assert torch.equal(both[0][:2], both[1])


def test_parts_of_a_batch_are_treated_as_the_whole() -> None:
    x, ids = batch(), np.array([4, 0, 2**32 - 1, 2, 9, 3])
    crop = RandomResizedCrop(scale=(0.5, 1.0), ratio=(0.3, 3.0))
    for step in range(10):
        key = DrawKey(0, 0, step)
        whole = crop(x, key, samples=ids)
        parts = [crop(x[p], key, samples=ids[p]) for p in (slice(0, 4), slice(4, 6))]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-13)


def test_draws_do_not_touch_and_do_not_follow_global_generators() -> None:
    before = torch.random.get_rng_state()
    expected = RandomResizedCrop()(batch(), DrawKey(5))
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(RandomResizedCrop()(batch(), DrawKey(5)), expected)


def test_draw_is_for_images_of_one_size() -> None:
    draw = RandomResizedCrop().draw(DrawKey(0), 6, (7, 9))
    with pytest.raises(ValueError, match=r"made for images of height and width \(7, 9\)"):
        draw.apply(batch(6, (9, 7)))
    with pytest.raises(ValueError, match=r"it must be \(5,.*, a row for each image"):
        draw.apply(batch(5))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, "^size=0; it must be an integer of at least 1"),
        ({"size": (4, -1)}, ValueError, r"^size\[1\]=-1"),
        ({"size": (4, 4, 3)}, ValueError, r"^size=\(4, 4, 3\); it must be a side or"),
        ({"size": 4.0}, TypeError, "^size=4.0 is a float"),
        ({"scale": 0.5}, TypeError, r"^scale=0.5 is a float; it must be \(low, high\)"),
        ({"scale": "01"}, TypeError, "^scale='01' is a str"),
        ({"scale": (0.5,)}, ValueError, r"^scale=\(0.5,\); it must be \(low, high\)"),
        ({"scale": (0.0, 1.0)}, ValueError, "with 0 < low <= high <= 1"),
        ({"scale": (0.8, 0.5)}, ValueError, "with 0 < low <= high <= 1"),
        ({"scale": (0.5, 1.1)}, ValueError, r"^scale\[1\]=1.1; .* at most 1"),
        ({"ratio": (2.0, 1.0)}, ValueError, r"^ratio=\(2.0, 1.0\); .* 0 < low <= high$"),
        ({"ratio": (1.0, float("inf"))}, ValueError, r"^ratio\[1\]=inf"),
        ({"ratio": ("1", 2)}, TypeError, r"^ratio\[0\]='1' is a str"),
        ({"flip": 1.5}, ValueError, "^flip=1.5"),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RandomResizedCrop(**options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 6, (8, 8)), TypeError, "key is a int; it must be a DrawKey"),
        ((DrawKey(0), 0, (8, 8)), ValueError, "n_samples=0"),
        ((DrawKey(0), 6, (8,)), ValueError, r"image_size=\(8,\)"),
    ],
)
def test_arguments_of_draws_are_checked(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RandomResizedCrop().draw(*arguments)


def test_samples_and_siamese_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="samples cannot be combined with siamese"):
        RandomResizedCrop()(batch(), DrawKey(0), siamese=True, samples=np.arange(6))
    with pytest.raises(ValueError, match=r"samples has shape \(5,\)"):
        RandomResizedCrop()(batch(), DrawKey(0), samples=np.arange(5))


def test_records_are_frozen() -> None:
    crop = RandomResizedCrop()
    for record, name in ((crop, "flip"), (crop.draw(DrawKey(0), 2, (8, 8)), "boxes")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)
