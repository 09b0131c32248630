# SPDX-License-Identifier: Apache-2.0
"""Small image data sets as arrays and as files."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASS_COUNTS = (5, 3, 4)
NAMES = ("cat", "dog", "owl")


def make_images(
    counts: Sequence[int] = CLASS_COUNTS, shape: tuple[int, int, int] = (3, 6, 5), seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (n, c, h, w) and labels in mixed order, every class at both ends.

    Each of `counts` is at least 2.
    """
    rng = np.random.default_rng(seed)
    classes = np.arange(len(counts))
    middle = rng.permutation(np.repeat(classes, np.subtract(counts, 2)))
    labels = np.concatenate([classes, middle, classes[::-1]])
    return rng.integers(0, 256, (len(labels), *shape), np.uint8), labels


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode one image (c, h, w) without loss."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(
    path: Path,
    cells: Sequence[bytes | None],
    labels: Sequence[int | None] | NDArray[Any],
    names: Sequence[str] | None = NAMES,
    *,
    group: int = 4,
    image_name: str = "img",
) -> None:
    """Write the layout of the Hugging Face hub, `group` rows a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": cell, "path": None} for cell in cells], kind)
    table = pa.table({image_name: images, "label": pa.array(list(labels), pa.int64())})
    if names is not None:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


def write_tree(
    root: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], names: Sequence[str] = NAMES
) -> None:
    """Write one folder a class, files named by their row."""
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row:04d}.png").write_bytes(png(image))


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return the content of an IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_idx(folder: Path, prefix: str, images: Any, labels: Any, *, compress: bool) -> None:
    """Write MNIST's pair of files."""
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = idx_bytes(np.asarray(array, np.uint8))
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if compress else ''}"
        path.write_bytes(gzip.compress(content) if compress else content)
