# SPDX-License-Identifier: Apache-2.0
"""Synthetic images that are stored as something else: arrays, and what decodes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count
from ddkern.data.provenance import as_json
from ddkern.errors import UnsupportedError

__all__ = ["Decoder", "Encoding", "register_decoder"]

Arrays = Mapping[str, NDArray[Any]]
Options = Mapping[str, Any]


class Decoder(Protocol):
    """Turns arrays into images. Both methods raise ValueError for arrays that do not fit."""

    def shape(self, arrays: Arrays, options: Options) -> tuple[int, int, int, int]:
        """Images, channels, height, width of what :meth:`decode` makes of all rows."""

    def decode(
        self, arrays: Arrays, options: Options, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """The images of ``rows``: float32, shape (len(rows), channels, height, width)."""


_DECODERS: dict[str, Decoder] = {}


def register_decoder(name: str, decoder: Decoder) -> None:
    """Make a decoder known under a name, which is what files store.

    Parameters
    ----------
    name : str
    decoder : Decoder

    Raises
    ------
    ValueError
        If another decoder has this name.
    """
    if _DECODERS.setdefault(name, decoder) is not decoder:
        raise ValueError(f"name={name!r} is taken by another decoder")


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """Parameters of images, which :meth:`decode` computes.

    Attributes
    ----------
    decoder : str
        ``"upsampled_parts"``, ``"low_rank"``, or a name given to :func:`register_decoder`.

        - ``upsampled_parts``: array ``images`` (m, c, h, w), option ``factor``. Every image is cut
          into factor x factor parts, row by row, and each part enlarged to (h, w) by bilinear
          interpolation between pixel centres: m * factor**2 images (J.-H. Kim et al., *Dataset
          condensation via efficient synthetic-data parameterization*, ICML 2022, section 4.1).
        - ``low_rank``: arrays ``left`` (n, c, h, r) and ``right`` (n, c, r, w), whose products are
          the channels.
    arrays : mapping from str to ndarray of floats
        What is learned and stored.
    options : mapping
        Plain values (JSON) that the decoder needs.
    """

    decoder: str
    arrays: Arrays
    options: Options

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if array.dtype.kind != "f":
                raise TypeError(
                    f"array {name!r} of the encoding has dtype {array.dtype}; not float"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"array {name!r} of the encoding holds NaN or infinity")
        object.__setattr__(self, "options", as_json("options", self.options))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all images together: (n, channels, height, width)."""
        return self._find().shape(self.arrays, self.options)

    def decode(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The images of these rows: float32, shape (len(rows), channels, height, width)."""
        return self._find().decode(self.arrays, self.options, rows)

    def _find(self) -> Decoder:
        if self.decoder not in _DECODERS:
            known = ", ".join(map(repr, _DECODERS))
            raise UnsupportedError(
                f"decoder={self.decoder!r} is unknown here (known: {known}); import the module "
                "that calls ddkern.data.register_decoder for it"
            )
        return _DECODERS[self.decoder]


class _UpsampledParts:
    def shape(self, arrays: Arrays, options: Options) -> tuple[int, int, int, int]:
        images, factor = _array(arrays, "images"), as_count("factor", options.get("factor"))
        n, channels, height, width = images.shape
        if height % factor or width % factor:
            raise ValueError(f"factor={factor}; it must divide the image size {height} x {width}")
        return n * factor**2, channels, height, width

    def decode(
        self, arrays: Arrays, options: Options, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        _, channels, height, width = self.shape(arrays, options)
        factor = int(options["factor"])
        h, w = height // factor, width // factor
        image, part = np.divmod(rows, factor**2)
        parts = np.empty((len(rows), channels, h, w), np.float64)
        for i, (m, p) in enumerate(zip(image.tolist(), part.tolist(), strict=True)):
            top, left = h * (p // factor), w * (p % factor)
            parts[i] = arrays["images"][m, :, top : top + h, left : left + w]
        down, across = _bilinear(h, height), _bilinear(w, width)
        return (down @ parts @ across.T).astype(np.float32)


class _LowRank:
    def shape(self, arrays: Arrays, options: Options) -> tuple[int, int, int, int]:
        del options
        left, right = _array(arrays, "left"), _array(arrays, "right")
        if left.shape[:2] != right.shape[:2] or left.shape[3] != right.shape[2]:
            raise ValueError(
                f"left has shape {left.shape} and right {right.shape}; they must be (n, c, h, r) "
                "and (n, c, r, w)"
            )
        return left.shape[0], left.shape[1], left.shape[2], right.shape[3]

    def decode(
        self, arrays: Arrays, options: Options, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        self.shape(arrays, options)
        product: NDArray[Any] = arrays["left"][rows] @ arrays["right"][rows]
        return product.astype(np.float32)


def _array(arrays: Arrays, name: str) -> NDArray[Any]:
    if name not in arrays or arrays[name].ndim != 4:
        raise ValueError(f"the encoding needs an array {name!r} with four axes")
    return arrays[name]


def _bilinear(old: int, new: int) -> NDArray[np.float64]:
    """Matrix (new, old) of linear interpolation between pixel centres, constant at the borders."""
    position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.minimum(position.astype(np.int64), max(old - 2, 0))
    matrix = np.zeros((new, old))
    matrix[np.arange(new), low] = 1 - (position - low)
    if old > 1:
        matrix[np.arange(new), low + 1] = position - low
    return matrix


register_decoder("upsampled_parts", _UpsampledParts())
register_decoder("low_rank", _LowRank())
