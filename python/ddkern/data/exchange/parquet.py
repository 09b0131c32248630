# SPDX-License-Identifier: Apache-2.0
"""A distilled set as one parquet file, as the Hugging Face hub stores image data sets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ddkern.data.distilled_set import DistilledSet
from ddkern.data.exchange.image_folder import encoded_images
from ddkern.files import replaced_when_complete
from ddkern.optional import import_optional

__all__ = ["save_parquet"]


def save_parquet(distilled: DistilledSet, path: str | os.PathLike[str]) -> None:
    """Write a row an image: ``image``, ``label``, ``sample_weight`` and, if any, ``soft_label``.

    Images are PNG files of 8 bits. The schema says that they are images and what the classes are
    called, so ``datasets.load_dataset("parquet", data_files=path)`` decodes them, and
    :func:`ddkern.data.open_dataset` reads images, labels and names back.

    Parameters
    ----------
    distilled : DistilledSet
    path : path-like
        The file appears complete or not at all.

    Raises
    ------
    UnsupportedError
        If pyarrow or Pillow is not installed.
    """
    pa: Any = import_optional("pyarrow", "writing parquet files", "data")
    parquet: Any = import_optional("pyarrow.parquet", "writing parquet files", "data")
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [
        {"bytes": data, "path": f"{row}.png"} for row, data in enumerate(encoded_images(distilled))
    ]
    columns = {
        "image": pa.array(cells, image_type),
        "label": pa.array(distilled.labels),
        "sample_weight": pa.array(distilled.sample_weight),
    }
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(distilled.class_names)},
        "sample_weight": {"_type": "Value", "dtype": "float64"},
    }
    if distilled.soft_labels is not None:
        rows = distilled.soft_labels.astype("float32").tolist()
        columns["soft_label"] = pa.array(rows, pa.list_(pa.float32()))
        features["soft_label"] = {
            "_type": "Sequence",
            "feature": {"_type": "Value", "dtype": "float32"},
        }
    table = pa.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    with replaced_when_complete(Path(path)) as file:
        parquet.write_table(table, file)
