# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 from the parquet files that DDKERN_CIFAR10 points at."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

VARIABLE = "DDKERN_CIFAR10"
TRAIN_FILE = "train-00000-of-00001.parquet"


def train_images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the training images (50000, 32, 32, 3) and labels (50000,), or skip with the reason.

    The files hold JPEG bytes in a column `img` and labels in a column `label`. They are decoded
    once per session.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} is not set; it names the folder with {TRAIN_FILE}")
    pytest.importorskip("pyarrow.parquet", reason="reading CIFAR-10 needs pyarrow")
    pytest.importorskip("PIL.Image", reason="decoding CIFAR-10 needs Pillow")
    return _decode(Path(folder) / TRAIN_FILE)


def class_pixels(label: int) -> NDArray[np.uint8]:
    """Return the training images of one class as rows of pixels (5000, 3072)."""
    images, labels = train_images()
    return images[labels == label].reshape(-1, 3072)


@cache
def _decode(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    import pyarrow.parquet
    from PIL import Image

    table = pyarrow.parquet.read_table(path)
    labels = table["label"].to_numpy().astype(np.int64)
    images = np.empty((len(labels), 32, 32, 3), np.uint8)
    for i, cell in enumerate(table["img"].combine_chunks().field("bytes")):
        with Image.open(io.BytesIO(cell.as_buffer())) as image:
            images[i] = np.asarray(image.convert("RGB"))
    images.flags.writeable = False
    labels.flags.writeable = False
    return images, labels
