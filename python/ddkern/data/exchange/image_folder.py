# SPDX-License-Identifier: Apache-2.0
"""A distilled set as a tree of PNG files, one folder a class, with a table beside it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ddkern.data.distilled_set import DistilledSet
from ddkern.files import folder_when_complete
from ddkern.optional import import_optional

__all__ = ["encoded_images", "save_image_folder"]

# Undoing a whitening costs almost the same for one image as for a few hundred.
_ROWS_AT_ONCE = 256


def save_image_folder(distilled: DistilledSet, folder: str | os.PathLike[str]) -> None:
    """Write ``<folder>/<class>/<row>.png`` for every image, and ``<folder>/metadata.csv``.

    Class folders are called ``<label>_<name>`` and files by the row of the set, both with zeros in
    front, so that every program that sorts names finds classes and images in their order. The table
    has the columns ``file_name``, ``label``, ``class_name``, ``sample_weight``, and with soft
    labels ``soft_label``, a JSON list; ``datasets.load_dataset("imagefolder", data_dir=folder)``
    reads it. Images are rounded to 8 bits: learned pixels, the learning rate and the provenance are
    in the file of :meth:`DistilledSet.save` only.

    Parameters
    ----------
    distilled : DistilledSet
    folder : path-like
        New or empty. It appears complete or not at all.

    Raises
    ------
    FileExistsError
        If ``folder`` exists and is not empty.
    UnsupportedError
        If Pillow is not installed.
    """
    labels = distilled.labels
    names = [
        f"{label:0{_digits(distilled.n_classes)}d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}"
        for label, name in enumerate(distilled.class_names)
    ]
    header = ["file_name", "label", "class_name", "sample_weight"]
    if distilled.soft_labels is not None:
        header.append("soft_label")
    with folder_when_complete(Path(folder)) as draft:
        for name in names:
            (draft / name).mkdir()
        with (draft / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(header)
            for row, data in enumerate(encoded_images(distilled)):
                label = int(labels[row])
                place = f"{names[label]}/{row:0{_digits(len(labels))}d}.png"
                (draft / place).write_bytes(data)
                weight = repr(float(distilled.sample_weight[row]))
                entry = [place, label, distilled.class_names[label], weight]
                if distilled.soft_labels is not None:
                    entry.append(json.dumps(distilled.soft_labels[row].tolist()))
                table.writerow(entry)


def encoded_images(distilled: DistilledSet) -> Iterator[bytes]:
    """Every image as a PNG file of 8 bits, in the order of the set."""
    pil: Any = import_optional("PIL.Image", "writing images", "data")
    for start in range(0, len(distilled), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(distilled))
        for image in distilled.pixels(np.arange(start, stop)):
            grey = len(image) == 1
            pixels = image[0] if grey else np.ascontiguousarray(image.transpose(1, 2, 0))
            stream = io.BytesIO()
            pil.fromarray(pixels).save(stream, "PNG")
            yield stream.getvalue()


def _digits(count: int) -> int:
    return len(str(count - 1))
