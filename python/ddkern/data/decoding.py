# SPDX-License-Identifier: Apache-2.0
"""From encoded images (PNG, JPEG, ...) to arrays of one shape."""

from __future__ import annotations

import io
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ddkern.backend import max_threads
from ddkern.checks import as_count, as_integer
from ddkern.optional import import_optional

__all__ = [
    "LARGEST_SIDE",
    "EncodedImages",
    "EncodedStore",
    "ImageRules",
    "decode_image",
    "parse_rules",
]

_GREY_MODES = frozenset({"1", "L", "LA"})
_DEEP_MODES = ("I", "F")  # 16 bits and more; also "I;16" and its kind

LARGEST_SIDE = 1 << 12
"""The largest side that images are scaled to."""

_MOST_ASPECT = 50

# Threads decode at once, since Pillow's decoders leave the interpreter to others. Files of fewer
# bytes are decoded sooner than they are handed over.
_MOST_THREADS = 16
_BYTES_WORTH_A_THREAD = 1 << 15


@dataclass(frozen=True, slots=True)
class ImageRules:
    """What an encoded image is turned into.

    Attributes
    ----------
    channels : int or None
        1 (grey) or 3 (RGB); None keeps a grey image grey and makes RGB of everything else.
    size : int or None
        Height and width: the shorter side is scaled to it (bilinear, with antialiasing) and the
        middle cut out. None keeps the image as it is.
    colour_to_grey : bool
        Whether a colour image may become grey. Otherwise it is an error where ``channels`` is 1.
    """

    channels: int | None = None
    size: int | None = None
    colour_to_grey: bool = False


def parse_rules(channels: Any, size: Any) -> ImageRules:
    """The rules that the arguments of :func:`ddkern.data.open_dataset` ask for."""
    if channels is not None:
        channels = as_integer("channels", channels, "it must be 1, 3 or None")
        if channels not in (1, 3):
            raise ValueError(f"channels={channels}; it must be 1, 3 or None")
    if size is not None:
        size = as_count("size", size, at_most=LARGEST_SIDE)
    return ImageRules(channels, size, colour_to_grey=channels == 1)


def decode_image(data: bytes, where: str, rules: ImageRules) -> NDArray[np.uint8]:
    """Decode one image.

    Parameters
    ----------
    data : bytes
        A complete file of any format that Pillow reads. Of several frames the first counts;
        transparency is dropped.
    where : str
        Begins messages.
    rules : ImageRules

    Returns
    -------
    ndarray of uint8, shape (channels, height, width)

    Raises
    ------
    ValueError
        If the image is corrupt, has more than 8 bits a channel, or has colours where grey images
        are wanted.
    UnsupportedError
        If Pillow is not installed.
    """
    pil = import_optional("PIL.Image", "decoding images", "data")
    # What Pillow's decoders raise on damaged files, beside its own OSError.
    damage = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
    try:
        with pil.open(io.BytesIO(data)) as image:
            picture = image.copy()  # decodes it
    except (*damage, pil.DecompressionBombError) as error:
        raise ValueError(f"{where}: corrupt image: {error}") from error
    if picture.mode.startswith(_DEEP_MODES):
        raise ValueError(
            f"{where}: the image has mode {picture.mode!r}, which has more than 8 bits a channel; "
            "convert it to 8 bits first"
        )
    is_grey = picture.mode in _GREY_MODES
    if not is_grey and rules.channels == 1 and not rules.colour_to_grey:
        raise ValueError(
            f"{where}: the image is in colour (mode {picture.mode!r}), but the first one is grey; "
            "pass channels=3 (--channels) to read all as RGB, or channels=1 to read all as grey"
        )
    channels = rules.channels or (1 if is_grey else 3)
    picture = picture.convert("L" if channels == 1 else "RGB")
    if rules.size is not None:
        width, height = picture.size
        if max(width, height) > _MOST_ASPECT * min(width, height):
            raise ValueError(
                f"{where}: the image is {height} x {width} (height x width); with size="
                f"{rules.size} no side may be more than {_MOST_ASPECT} times the other"
            )
        picture = _scale_and_crop(pil, picture, rules.size)
    pixels = np.asarray(picture)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _scale_and_crop(pil: Any, picture: Any, size: int) -> Any:
    width, height = picture.size
    scale = size / min(width, height)
    scaled = (max(size, round(width * scale)), max(size, round(height * scale)))
    if scaled != picture.size:
        picture = picture.resize(scaled, pil.Resampling.BILINEAR)
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    return picture.crop((left, top, left + size, top + size))


class EncodedStore(Protocol):
    """Encoded images by row."""

    def fetch(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        """Position in ``rows`` and encoded image of every row, in any order."""

    def name_row(self, row: int) -> str:
        """What messages call a row."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImages:
    """Encoded images as an :class:`ddkern.data.dataset.ImageSource`. All must have one shape.

    Attributes
    ----------
    store : EncodedStore
    rules : ImageRules
    image_shape : (int, int, int)
        Channels, height, width.
    first : str
        What messages call the image that ``image_shape`` is of.
    """

    store: EncodedStore
    rules: ImageRules
    image_shape: tuple[int, int, int]
    first: str

    @classmethod
    def of(cls, store: EncodedStore, rules: ImageRules) -> EncodedImages:
        """Take the shape, and where ``rules`` leave it open the channels, from row 0."""
        first = store.name_row(0)
        ((_, data),) = store.fetch(np.zeros(1, np.int64))
        channels, height, width = decode_image(data, first, rules).shape
        fixed = replace(rules, channels=channels)
        return cls(store, fixed, (channels, height, width), first)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode these rows, on as many threads as pay; OpenMP's limit is that of these too."""
        images = np.empty((len(rows), *self.image_shape), np.uint8)

        def decode(position: int, data: bytes) -> None:
            images[position] = self._decode(int(rows[position]), data)

        threads = min(max_threads(), _MOST_THREADS, len(rows))
        coming: deque[Future[None]] = deque()
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for position, data in self.store.fetch(rows):
                if threads <= 1 or len(data) < _BYTES_WORTH_A_THREAD:
                    # What was handed over before comes first, its errors too.
                    while coming:
                        coming.popleft().result()
                    decode(position, data)
                    continue
                coming.append(pool.submit(decode, position, data))
                if len(coming) > 2 * threads:
                    coming.popleft().result()
            while coming:
                coming.popleft().result()
        return images

    def _decode(self, row: int, data: bytes) -> NDArray[np.uint8]:
        where = self.store.name_row(row)
        image = decode_image(data, where, self.rules)
        if image.shape != self.image_shape:
            _, height, width = self.image_shape
            raise ValueError(
                f"{where}: mixed sizes: the image is {image.shape[1]} x {image.shape[2]} and "
                f"{self.first} is {height} x {width} (height x width); pass size=... "
                "(--size) to scale and crop all images to one size"
            )
        return image

    def name_row(self, row: int) -> str:
        """As the store names it."""
        return self.store.name_row(row)
