# SPDX-License-Identifier: Apache-2.0
"""The IDX format of MNIST and its relatives, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddkern.data.dataset import ImageDataset
from ddkern.data.readers.arrays import dataset_of_arrays
from ddkern.data.readers.layout import choose_split, split_in_name, words_of

__all__ = ["find_idx_files", "is_idx_name", "open_idx"]

_UNSIGNED_BYTES = 0x08


def open_idx(path: Path, split: str | None) -> ImageDataset:
    """Open a folder with files like ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``.

    Each may end in ``.gz``. Plain files are mapped; compressed ones are inflated into memory.
    The format: two bytes 0, a byte for the type (8: unsigned bytes), a byte for the number of axes,
    their lengths as 32-bit big-endian integers, the values (Y. LeCun, C. Cortes and C. Burges,
    *The MNIST database of handwritten digits*).

    Parameters
    ----------
    path : Path
        The folder, or one of its files, which then decides the split.
    split : str or None
    """
    folder = path
    if path.is_file():
        folder, split = path.parent, split or split_in_name(path.name)
    chosen, part = choose_split(find_idx_files(folder), split, str(path))
    for role in ("images", "labels"):
        if role not in part:
            raise ValueError(
                f"{folder}: the {role} are missing: looked for a name like "
                f"{chosen or 'train'}-{role}-idx{3 if role == 'images' else 1}-ubyte, with or "
                "without .gz"
            )
    images, labels = read_idx(part["images"]), read_idx(part["labels"])
    return dataset_of_arrays(
        images,
        labels,
        name=str(path),
        split=chosen,
        origin=str(part["images"]),
        class_names=None,
    )


def is_idx_name(name: str) -> bool:
    """Whether a file of this name should hold images or labels in the IDX format."""
    words = words_of(name)
    return "ubyte" in words and any(word.startswith("idx") for word in words)


def find_idx_files(folder: Path) -> dict[str | None, dict[str, Path]]:
    """Files of images and of labels for each split in ``folder``."""
    found: dict[str | None, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and is_idx_name(file.name):
            for role in ("images", "labels"):
                if role in words_of(file.name):
                    # Of a file and its compressed twin the plain one, which sorts first, is taken.
                    found.setdefault(split_in_name(file.name), {}).setdefault(role, file)
    return found


def read_idx(file: Path) -> NDArray[np.uint8]:
    """The array of one IDX file of unsigned bytes.

    Raises
    ------
    ValueError
        If the file is not of that kind, or shorter or longer than it says.
    """
    values = _bytes_of(file)
    if len(values) < 4 or values[0] or values[1] or not values[3]:
        raise ValueError(f"{file} is not an IDX file: it begins with {bytes(values[:4]).hex()}")
    if values[2] != _UNSIGNED_BYTES:
        raise ValueError(f"{file} has values of type 0x{values[2]:02x}; images and labels are 0x08")
    n_axes = int(values[3])
    start = 4 + 4 * n_axes
    if len(values) < start:
        raise ValueError(f"{file} ends within its header")
    shape = struct.unpack(f">{n_axes}I", bytes(values[4:start]))
    if len(values) - start != math.prod(shape):
        raise ValueError(
            f"{file} holds {len(values) - start} values; its header says {math.prod(shape)}, shape "
            f"{shape}"
        )
    array: NDArray[np.uint8] = values[start:].reshape(shape)
    return array


def _bytes_of(file: Path) -> Any:
    if file.suffix != ".gz":
        return np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)
    try:
        with gzip.open(file) as stream:
            return np.frombuffer(stream.read(), np.uint8)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} cannot be inflated: {error}") from error
