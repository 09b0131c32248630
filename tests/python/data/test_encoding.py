# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ddkern import UnsupportedError
from ddkern.data import Encoding, register_decoder
from ddkern.data.encoding import _DECODERS


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("factor", "height", "width"), [(1, 4, 6), (2, 4, 6), (3, 6, 9), (4, 4, 8)]
)
def test_upsampled_parts_are_bilinear(factor: int, height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    images = _random(2, 3, height, width)
    encoding = Encoding("upsampled_parts", {"images": images}, {"factor": factor})
    n = 2 * factor**2
    assert encoding.shape == (n, 3, height, width)
    decoded = encoding.decode(np.arange(n))
    h, w = height // factor, width // factor
    expected = [
        torch.nn.functional.interpolate(
            torch.tensor(images[None, m, :, h * i : h * (i + 1), w * j : w * (j + 1)]),
            size=(height, width),
            mode="bilinear",
            align_corners=False,
        )[0].numpy()
        for m in range(2)
        for i in range(factor)
        for j in range(factor)
    ]
    np.testing.assert_allclose(decoded, np.stack(expected), atol=2e-6)
    np.testing.assert_array_equal(encoding.decode(np.array([n - 1, 0])), decoded[[n - 1, 0]])


def test_one_part_is_the_image_itself() -> None:
    images = _random(2, 1, 5, 3)
    encoding = Encoding("upsampled_parts", {"images": images}, {"factor": 1})
    np.testing.assert_array_equal(encoding.decode(np.arange(2)), images)


def test_low_rank_is_a_product() -> None:
    left, right = _random(4, 3, 5, 2), _random(4, 3, 2, 6)
    encoding = Encoding("low_rank", {"left": left, "right": right}, {})
    assert encoding.shape == (4, 3, 5, 6)
    expected = np.einsum("nchr,ncrw->nchw", left, right)
    np.testing.assert_allclose(encoding.decode(np.arange(4)), expected, atol=1e-6)
    np.testing.assert_allclose(encoding.decode(np.array([2])), expected[[2]], atol=1e-6)


class Doubled:
    def shape(
        self, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]
    ) -> tuple[int, int, int, int]:
        n, c, h, w = arrays["half"].shape
        return n, c, h, w

    def decode(
        self, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any], rows: np.ndarray
    ) -> np.ndarray:
        return arrays["half"][rows] * options["times"]


def test_decoders_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = Encoding("doubled", {"half": _random(2, 1, 3, 3)}, {"times": 2})
    with pytest.raises(UnsupportedError, match="decoder='doubled' is unknown here .*'low_rank'"):
        encoding.decode(np.arange(2))
    monkeypatch.setattr("ddkern.data.encoding._DECODERS", dict(_DECODERS))
    decoder = Doubled()
    register_decoder("doubled", decoder)
    register_decoder("doubled", decoder)
    np.testing.assert_array_equal(encoding.decode(np.array([1])), encoding.arrays["half"][[1]] * 2)
    with pytest.raises(ValueError, match="name='doubled' is taken by another decoder"):
        register_decoder("doubled", Doubled())


@pytest.mark.parametrize(
    ("decoder", "arrays", "options", "error", "message"),
    [
        ("upsampled_parts", {"images": _random(1, 1, 4, 4)}, {}, TypeError, "factor=None"),
        ("upsampled_parts", {"images": _random(1, 1, 4, 4)}, {"factor": 3}, ValueError, "4 x 4"),
        ("upsampled_parts", {"image": _random(1, 1, 4, 4)}, {"factor": 2}, ValueError, "'images'"),
        ("low_rank", {"left": _random(1, 1, 4, 2)}, {}, ValueError, "needs an array 'right'"),
        (
            "low_rank",
            {"left": _random(1, 1, 4, 2), "right": _random(1, 1, 3, 4)},
            {},
            ValueError,
            r"left has shape \(1, 1, 4, 2\) and right \(1, 1, 3, 4\)",
        ),
        ("low_rank", {"left": np.ones((1, 1, 4, 2), int)}, {}, TypeError, "has dtype int64"),
        ("low_rank", {"left": np.full((1, 1, 4, 2), np.inf)}, {}, ValueError, "'left' .* NaN"),
        ("low_rank", {"left": _random(1, 1, 4, 2)}, {"f": print}, TypeError, r"options\['f'\]"),
    ],
)
def test_arrays_that_do_not_fit(
    decoder: str,
    arrays: dict[str, np.ndarray],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        _ = Encoding(decoder, arrays, options).shape
