# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 from the parquet files that DDKERN_CIFAR10 points at."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

VARIABLE = "DDKERN_CIFAR10"
TRAIN_FILE = "train-00000-of-00001.parquet"


def train_labels() -> NDArray[np.int64]:
    """Return the labels (50000,) of the training images, or skip with the reason."""
    return _table()[1]


def train_images(rows: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return training images (n, 32, 32, 3) by their rows, or skip with the reason.

    The file holds encoded images in a column `img` and labels in a column `label`, and is read once
    a session. Decoding all 50000 takes seconds, so whoever needs some says which.
    """
    cells, _ = _table()
    from PIL import Image

    images = np.empty((len(rows), 32, 32, 3), np.uint8)
    for i, row in enumerate(rows):
        with Image.open(io.BytesIO(cells[int(row)].as_buffer())) as image:
            images[i] = np.asarray(image.convert("RGB"))
    return images


def rows_of_classes(n: int) -> NDArray[np.intp]:
    """Return the first `n` rows of every class, in the order of the file."""
    labels = train_labels()
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:n] for c in range(10)]))


def class_pixels(label: int, n: int) -> NDArray[np.uint8]:
    """Return the first `n` training images of one class as rows of pixels (n, 3072)."""
    return train_images(np.flatnonzero(train_labels() == label)[:n]).reshape(-1, 3072)


def _table() -> tuple[Any, NDArray[np.int64]]:
    """Return the bytes of all images, not decoded, and the labels."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} is not set; it names the folder with {TRAIN_FILE}")
    pytest.importorskip("pyarrow.parquet", reason="reading CIFAR-10 needs pyarrow")
    pytest.importorskip("PIL.Image", reason="decoding CIFAR-10 needs Pillow")
    return _read(Path(folder) / TRAIN_FILE)


@cache
def _read(path: Path) -> tuple[Any, NDArray[np.int64]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    labels = table["label"].to_numpy().astype(np.int64)
    labels.flags.writeable = False
    return table["img"].combine_chunks().field("bytes"), labels
