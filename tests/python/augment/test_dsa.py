# SPDX-License-Identifier: Apache-2.0
"""DSA: what is drawn, how it is replayed, and that a Siamese pair shares it."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from ddkern.augment import DSA, DrawKey, DSADraw
from ddkern.augment.draws import Purpose
from reference import augment as twin

NAMES = ("color", "crop", "cutout", "flip", "scale", "rotate")


def batch(n: int = 6, size: tuple[int, int] = (12, 10)) -> Any:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 3, *size, generator=generator)


def parameters_by_hand(name: str, u: list[float], size: tuple[int, int]) -> dict[str, Any]:
    """Return the parameters of one sample, from the ranges that the literature uses."""
    if name == "color":
        return {"brightness": u[0] - 0.5, "saturation": 2 * u[1], "contrast": 0.5 + u[2]}
    if name == "crop":
        reach = [math.floor(side / 8 + 0.5) for side in size]
        return {"crop": [math.floor(u[a] * (2 * reach[a] + 1)) - reach[a] for a in (0, 1)]}
    if name == "cutout":
        box = []
        for a, side in enumerate(size):
            length = math.floor(side / 2 + 0.5)
            places = side if length % 2 else side + 1
            covered = [math.floor(u[a] * places) - length // 2 + t for t in range(length)]
            inside = [at for at in covered if 0 <= at < side]
            box += [inside[0], inside[-1] + 1]
        return {"cutout": box}
    if name == "flip":
        return {"flip": u[0] < 0.5}
    if name == "scale":
        return {"scale": [1 / 1.2 + u[a] * (1.2 - 1 / 1.2) for a in (0, 1)]}
    return {"rotate": math.pi / 12 * (2 * u[0] - 1)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(32, 32), (28, 45), (9, 1)])
def test_draws_by_hand(name: str, size: tuple[int, int]) -> None:
    key = DrawKey(seed=2**63 + 5, iteration=9, step=4)
    draw = DSA(strategy=name).draw(key, 40, size)
    assert draw.operations == (name,)
    purpose = int(Purpose[name.upper()])
    for sample in range(40):
        u = twin.uniform(2**63 + 5, 9, 4, purpose, sample)
        for part, expected in parameters_by_hand(name, u, size).items():
            np.testing.assert_allclose(draw.parameters[part][sample], expected, rtol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_draw_is_applied_by_the_loops_over_pixels(name: str) -> None:
    x = batch().double()
    draw = DSA(strategy=name).draw(DrawKey(1), 6, (12, 10))
    functions = {
        "brightness": twin.shift_brightness,
        "saturation": twin.scale_saturation,
        "contrast": twin.scale_contrast,
    }
    expected = x.numpy()
    for part in ("brightness", "saturation", "contrast") if name == "color" else (name,):
        expected = functions.get(part, getattr(twin, part, None))(expected, draw.parameters[part])
    np.testing.assert_allclose(draw.apply(x).numpy(), expected, atol=1e-13)


def test_one_operation_a_batch_each_equally_likely() -> None:
    dsa = DSA()
    keys = [DrawKey(0, iteration, step) for iteration in range(60) for step in range(50)]
    chosen = [dsa.draw(key, 1, (8, 8)).operations for key in keys]
    assert {len(names) for names in chosen} == {1}
    counts = [chosen.count((name,)) for name in NAMES]
    # Chi-square with 5 degrees of freedom; 20.5 is exceeded once in a thousand.
    assert sum((count - 500) ** 2 / 500 for count in counts) < 20.5


def test_operation_follows_the_first_number_of_its_counter() -> None:
    for step in range(30):
        u = twin.uniform(3, 2, step, int(Purpose.OPERATION), 0)[0]
        drawn = DSA(strategy="rotate_flip_crop").draw(DrawKey(3, 2, step), 4, (8, 8))
        assert drawn.operations == (("rotate", "flip", "crop")[math.floor(3 * u)],)


@pytest.mark.parametrize(
    ("name", "part", "low", "high"),
    [
        ("color", "brightness", -0.5, 0.5),
        ("color", "saturation", 0.0, 2.0),
        ("color", "contrast", 0.5, 1.5),
        ("scale", "scale", 1 / 1.2, 1.2),
        ("rotate", "rotate", -math.pi / 12, math.pi / 12),
    ],
)
def test_continuous_parameters_are_uniform(name: str, part: str, low: float, high: float) -> None:
    drawn = DSA(strategy=name).draw(DrawKey(7), 4000, (8, 8)).parameters[part]
    for column in drawn.reshape(4000, -1).T:
        unit = np.sort((column - low) / (high - low))
        assert unit[0] >= 0
        assert unit[-1] < 1
        # Kolmogorov and Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand.
        assert np.abs(unit - np.arange(4000) / 4000).max() < 1.95 / math.sqrt(4000)


def test_parameters_of_one_operation_are_independent() -> None:
    color = DSA(strategy="color").draw(DrawKey(1), 4000, (8, 8)).parameters
    scale = DSA(strategy="scale").draw(DrawKey(1), 4000, (8, 8)).parameters["scale"]
    columns = [*color.values(), *scale.T]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    # Four standard deviations of the correlation of independent numbers.
    assert np.abs(correlation).max() < 4 / math.sqrt(4000)


def test_crop_and_flip_are_uniform() -> None:
    crop = DSA(strategy="crop").draw(DrawKey(7), 9000, (32, 32)).parameters["crop"]
    for column in crop.T:
        counts = np.unique(column, return_counts=True)
        assert counts[0].tolist() == list(range(-4, 5))
        # Chi-square with 8 degrees of freedom; 26.1 is exceeded once in a thousand.
        assert ((counts[1] - 1000) ** 2 / 1000).sum() < 26.1
    flipped = DSA(strategy="flip").draw(DrawKey(7), 4000, (32, 32)).parameters["flip"]
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / math.sqrt(4000)
    rare = DSA(strategy="flip", flip=0.1).draw(DrawKey(7), 4000, (32, 32)).parameters["flip"]
    assert abs(rare.mean() - 0.1) < 4 * 0.3 / math.sqrt(4000)


def test_cutout_has_its_centre_anywhere() -> None:
    box = DSA(strategy="cutout").draw(DrawKey(7), 4000, (32, 32)).parameters["cutout"]
    height, width = box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]
    assert set(height.tolist()) == set(width.tolist()) == set(range(8, 17))
    # A side of 16 fits whole at 17 of its 33 places.
    assert abs((height == 16).mean() - 17 / 33) < 4 * 0.5 / math.sqrt(4000)
    assert box.min() == 0
    assert box.max() == 32


@pytest.mark.parametrize("siamese", [False, True])
def test_the_same_key_repeats_a_call(siamese: bool) -> None:
    dsa = DSA()
    keys = [DrawKey(5, iteration, step) for iteration in range(8) for step in range(3)]
    first = [dsa(batch(), key, siamese=siamese) for key in keys]
    for key, expected in reversed(list(zip(keys, first, strict=True))):
        assert torch.equal(dsa(batch(), key, siamese=siamese), expected)
    # A flip that is not made leaves the batch alone, so a few may be equal.
    assert len({x.numpy().tobytes() for x in first}) >= len(keys) - 4


def test_draws_do_not_touch_and_do_not_follow_global_generators() -> None:
    before = torch.random.get_rng_state()
    expected = DSA()(batch(), DrawKey(5))
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(DSA()(batch(), DrawKey(5)), expected)


def test_another_process_draws_the_same() -> None:
    program = (
        "from ddkern.augment import DSA, DrawKey\n"
        "d = DSA(mode='all').draw(DrawKey(12, 3, 4), 5, (32, 32))\n"
        "print({k: v.tolist() for k, v in d.parameters.items()})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    here = DSA(mode="all").draw(DrawKey(12, 3, 4), 5, (32, 32))
    assert done.stdout.strip() == str({k: v.tolist() for k, v in here.parameters.items()})


def test_siamese_batches_share_one_draw() -> None:
    real, synthetic = batch(6), batch(6)[:2]
    for step in range(30):
        key = DrawKey(2, 0, step)
        a, b = (DSA().draw(key, n, (12, 10), siamese=True) for n in (6, 2))
        assert a.operations == b.operations
        for part, rows in a.parameters.items():
            assert len(rows) == 1
            np.testing.assert_array_equal(rows, b.parameters[part])
        both = DSA()(real, key, siamese=True), DSA()(synthetic, key, siamese=True)
        assert torch.equal(both[0][:2], both[1])


def test_images_of_one_batch_differ_unless_siamese() -> None:
    same = batch(1).expand(8, -1, -1, -1)
    for name in ("color", "crop", "scale", "rotate"):
        out = DSA(strategy=name)(same, DrawKey(0))
        assert len({image.numpy().tobytes() for image in out}) > 4
        out = DSA(strategy=name)(same, DrawKey(0), siamese=True)
        assert len({image.numpy().tobytes() for image in out}) == 1


def test_parts_of_a_batch_are_treated_as_the_whole() -> None:
    x, ids = batch(6), np.array([4, 0, 17, 2, 9, 3])
    for step in range(20):
        key = DrawKey(0, 0, step)
        whole = DSA()(x, key, samples=ids)
        parts = [DSA()(x[p], key, samples=ids[p]) for p in (slice(0, 4), slice(4, 6))]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)


def test_all_operations_in_their_order() -> None:
    x = batch()
    key = DrawKey(4)
    draw = DSA(strategy="flip_crop_color", mode="all").draw(key, 6, (12, 10))
    assert draw.operations == ("flip", "crop", "color")
    expected = x
    for name in ("flip", "crop", "color"):
        expected = DSA(strategy=name)(expected, key)
    assert torch.equal(draw.apply(x), expected)


def test_gradients_reach_the_images() -> None:
    for name in NAMES:
        x = batch().requires_grad_()
        y = DSA(strategy=name)(x, DrawKey(0))
        (gradient,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((gradient * gradient).sum(), x)
        for g in (gradient, second):
            assert torch.isfinite(g).all()
            assert g.abs().sum() > 0


def test_draw_is_for_images_of_one_size() -> None:
    draw = DSA().draw(DrawKey(0), 6, (12, 10))
    with pytest.raises(ValueError, match=r"made for images of height and width \(12, 10\)"):
        draw.apply(batch(6, (10, 12)))
    with pytest.raises(ValueError, match=r"it must be \(5,.*, a row for each image"):
        DSA(strategy="crop").draw(DrawKey(0), 6, (12, 10)).apply(batch(5))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strategy": ""}, ValueError, "strategy=''; it must join some of color, crop"),
        ({"strategy": "flip_"}, ValueError, "strategy='flip_'"),
        ({"strategy": "flip_flip"}, ValueError, "each at most once"),
        ({"strategy": "flip_noise"}, ValueError, "strategy='flip_noise'"),
        ({"strategy": ("flip",)}, TypeError, "strategy is a tuple"),
        ({"mode": "S"}, ValueError, "mode='S'; it must be one of 'one', 'all'"),
        ({"brightness": -0.1}, ValueError, "brightness=-0.1"),
        ({"saturation": float("nan")}, ValueError, "saturation=nan"),
        ({"contrast": "0.5"}, TypeError, "contrast='0.5' is a str"),
        ({"crop": 1.5}, ValueError, "crop=1.5; .* at most 1"),
        ({"cutout": -1}, ValueError, "cutout=-1"),
        ({"flip": True}, TypeError, "flip=True is a bool"),
        ({"scale": 0.9}, ValueError, "scale=0.9; .* at least 1"),
        ({"rotate": 181}, ValueError, "rotate=181.0; .* at most 180"),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DSA(**options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 6, (8, 8)), TypeError, "key is a int; it must be a DrawKey"),
        ((DrawKey(0), 0, (8, 8)), ValueError, "n_samples=0"),
        ((DrawKey(0), 6, (8,)), ValueError, r"image_size=\(8,\)"),
        ((DrawKey(0), 6, "8"), TypeError, "image_size='8' is a str; it must be"),
        ((DrawKey(0), 6, (8, 0)), ValueError, r"image_size\[1\]=0"),
    ],
)
def test_arguments_of_draws_are_checked(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        DSA().draw(*arguments)


def test_samples_and_siamese_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="samples cannot be combined with siamese"):
        DSA()(batch(), DrawKey(0), siamese=True, samples=np.arange(6))


def test_records_are_frozen() -> None:
    draw = DSA().draw(DrawKey(0), 2, (8, 8))
    assert isinstance(draw, DSADraw)
    for record, name in ((DSA(), "flip"), (DrawKey(0), "seed"), (draw, "operations")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)
