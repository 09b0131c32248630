# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from ddkern.data import decoding, open_dataset
from ddkern.data.decoding import ImageRules, decode_image, parse_rules
from helpers.datasets import make_images, png

COLOUR = make_images()[0][0]
GREY = COLOUR[:1]


def _encoded(array: Any, mode: str | None = None, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(array))
    (image if mode is None else image.convert(mode)).save(stream, kind, **options)
    return stream.getvalue()


def _decode(data: bytes, channels: int | None = None, size: int | None = None) -> np.ndarray:
    return decode_image(data, "here", parse_rules(channels, size))


def test_grey_stays_grey_and_colour_stays_colour() -> None:
    np.testing.assert_array_equal(_decode(png(GREY)), GREY)
    np.testing.assert_array_equal(_decode(png(COLOUR)), COLOUR)


def test_asked_for_channels() -> None:
    np.testing.assert_array_equal(_decode(png(GREY), 3), np.repeat(GREY, 3, axis=0))
    grey = _decode(png(COLOUR), 1)
    assert grey.shape == (1, 6, 5)
    luminance = COLOUR.transpose(1, 2, 0) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey[0], luminance, atol=1)


def test_palette_transparency_and_cmyk_become_rgb() -> None:
    pixels = COLOUR.transpose(1, 2, 0)
    opaque = np.dstack([pixels, np.full((6, 5), 7, np.uint8)])
    np.testing.assert_array_equal(_decode(_encoded(opaque)), COLOUR)
    palette = Image.fromarray(np.ascontiguousarray(pixels)).quantize(4)
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(_decode(stream.getvalue()), expected)
    assert _decode(_encoded(pixels, "CMYK", "TIFF")).shape == COLOUR.shape


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_decode_into_the_rows_that_were_asked_for(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "max_threads", lambda: threads)
    monkeypatch.setattr(decoding, "_BYTES_WORTH_A_THREAD", 100)
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 9, 9), np.uint8)
    images[::3] = 7  # in files of fewer bytes
    (tmp_path / "a").mkdir()
    for number, image in enumerate(images):
        (tmp_path / "a" / f"{number:02d}.png").write_bytes(png(image))
    dataset = open_dataset(tmp_path)
    rows = np.random.default_rng(1).permutation(40)
    np.testing.assert_array_equal(dataset.images(rows), images[rows])
    # The first one is told, whether another thread met it or not; 33 is decoded in this one.
    for number in (38, 33, 11):
        cut = png(images[number])[: 45 if number == 33 else 150]
        (tmp_path / "a" / f"{number:02d}.png").write_bytes(cut)
        with pytest.raises(ValueError, match=rf"{number}\.png \(row {number}\): corrupt image"):
            dataset.images()


def test_threads_work_at_once_on_a_few_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "max_threads", lambda: 3)
    monkeypatch.setattr(decoding, "_BYTES_WORTH_A_THREAD", 0)
    (tmp_path / "a").mkdir()
    for number in range(60):
        (tmp_path / "a" / f"{number:02d}.png").write_bytes(png(COLOUR))
    dataset = open_dataset(tmp_path)
    decode, together = decoding.decode_image, threading.Barrier(3, timeout=30)
    fetched, decoded = [], []

    def slow(*arguments: Any) -> np.ndarray:
        together.wait()  # goes on when three have come
        decoded.append(0)
        return decode(*arguments)

    fetch = type(dataset.source.store).fetch

    def counted(self: Any, rows: np.ndarray) -> Any:
        for item in fetch(self, rows):
            fetched.append(0)
            assert len(fetched) - len(decoded) < 20, "all files are held at once"
            yield item

    monkeypatch.setattr(type(dataset.source.store), "fetch", counted)
    monkeypatch.setattr(decoding, "decode_image", slow)
    np.testing.assert_array_equal(dataset.images(), np.broadcast_to(COLOUR, (60, *COLOUR.shape)))


def test_sides_that_cannot_be_scaled() -> None:
    long = np.repeat(COLOUR[:, :1], 400, axis=2)[:, :, :400]
    with pytest.raises(ValueError, match=r"here: the image is 1 x 400 .* size=8 no side"):
        _decode(png(long), size=8)
    with pytest.raises(ValueError, match="size=5000; it must be an integer of at least 1 and at m"):
        parse_rules(None, 5000)


def test_colour_among_grey_images() -> None:
    with pytest.raises(ValueError, match=r"here: the image is in colour \(mode 'RGB'\), but the"):
        decode_image(png(COLOUR), "here", ImageRules(channels=1))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_images_are_refused(dtype: Any) -> None:
    kind = "TIFF"
    with pytest.raises(ValueError, match="here: the image has mode .* more than 8 bits"):
        _decode(_encoded(np.ones((4, 4), dtype), None, kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_truncated_image(kind: str) -> None:
    rng = np.random.default_rng(0)
    data = _encoded(rng.integers(0, 256, (64, 64, 3), np.uint8), None, kind)
    _decode(data)
    for end in (0, 4, len(data) // 4, len(data) // 2):
        with pytest.raises(ValueError, match="here: corrupt image"):
            _decode(data[:end])


def test_damaged_image_is_an_image_or_a_named_error() -> None:
    data = png(COLOUR)
    messages = []
    for position in range(8, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        try:
            _decode(bytes(damaged))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > len(data) // 2
    assert all(message.startswith("here: ") for message in messages)


def test_scaling_keeps_the_proportions_and_takes_the_middle() -> None:
    image = np.zeros((3, 8, 16), np.uint8)
    image[:, :, 4:12] = 200  # exactly the middle square
    np.testing.assert_array_equal(_decode(png(image), size=8), np.full((3, 8, 8), 200))
    half = _decode(png(image), size=4)
    assert half.shape == (3, 4, 4)
    assert (half[:, :, 1:3] == 200).all()
    assert _decode(png(image), size=20).shape == (3, 20, 20)


@pytest.mark.parametrize(
    ("channels", "size", "error", "message"),
    [
        (2, None, ValueError, "channels=2; it must be 1, 3 or None"),
        ("rgb", None, TypeError, "channels='rgb' is a str"),
        (None, 0, ValueError, "size=0"),
        (None, (3, 4), TypeError, "size="),
    ],
)
def test_bad_rules(channels: Any, size: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_rules(channels, size)
