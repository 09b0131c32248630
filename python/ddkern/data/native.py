# SPDX-License-Identifier: Apache-2.0
"""The file format of :class:`ddkern.data.DistilledSet`: one safetensors file.

Tensors have the names of the set's fields; those of an encoding begin with ``encoding.``, those of
the normalization with ``normalization.``. Everything else is JSON in the header, under the one key
``metadata``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddkern.data.distilled_set import DistilledSet
from ddkern.data.encoding import Encoding
from ddkern.data.normalization import Normalization, Zca
from ddkern.data.provenance import Provenance
from ddkern.files import replaced_when_complete
from ddkern.optional import import_optional

__all__ = ["read_native", "write_native"]

_FORMAT = "ddkern.DistilledSet"
_FORMAT_VERSION = 1
_PURPOSE = "the file format of a DistilledSet"
_ENCODING = "encoding."


def write_native(distilled: DistilledSet, path: Path) -> None:
    """Write a set to ``path``, in one step."""
    _check_suffix(path)
    safetensors = import_optional("safetensors.numpy", _PURPOSE, "data")
    arrays, metadata = _flatten(distilled)
    content = safetensors.save(arrays, metadata={"metadata": json.dumps(metadata)})
    with replaced_when_complete(path) as file:
        file.write(content)


def read_native(path: Path) -> DistilledSet:
    """Read a set that :func:`write_native` wrote."""
    _check_suffix(path)
    safetensors = import_optional("safetensors", _PURPOSE, "data")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a .safetensors file: {error}") from error
    metadata = json.loads(header.get("metadata", "{}"))
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} does not hold a DistilledSet")
    if metadata["format_version"] != _FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {metadata['format_version']}; this ddkern reads version "
            f"{_FORMAT_VERSION}"
        )
    return _unflatten(arrays, metadata)


def _check_suffix(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ValueError(f"path={str(path)!r}; its suffix must be .safetensors")


def _flatten(distilled: DistilledSet) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    norm = distilled.normalization
    arrays: dict[str, NDArray[Any]] = {
        "labels": distilled.labels,
        "sample_weight": distilled.sample_weight,
        "normalization.mean": norm.mean,
        "normalization.std": norm.std,
    }
    metadata: dict[str, Any] = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "class_names": list(distilled.class_names),
        "soft_label_kind": distilled.soft_label_kind,
        "student_lr": distilled.student_lr,
        "provenance": asdict(distilled.provenance),
    }
    if isinstance(distilled.images, Encoding):
        encoding = distilled.images
        arrays |= {_ENCODING + name: array for name, array in encoding.arrays.items()}
        metadata["encoding"] = {"decoder": encoding.decoder, "options": dict(encoding.options)}
    else:
        arrays["images"] = distilled.images
    if distilled.soft_labels is not None:
        arrays["soft_labels"] = distilled.soft_labels
    if norm.zca is not None:
        arrays |= {
            "normalization.zca.mean": norm.zca.mean,
            "normalization.zca.matrix": norm.zca.matrix,
        }
        metadata["zca_eps"] = norm.zca.eps
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata


def _unflatten(arrays: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> DistilledSet:
    zca = None
    if "zca_eps" in metadata:
        zca = Zca(
            arrays["normalization.zca.mean"],
            arrays["normalization.zca.matrix"],
            metadata["zca_eps"],
        )
    images: NDArray[Any] | Encoding
    if "encoding" in metadata:
        start = len(_ENCODING)
        stored = {n[start:]: a for n, a in arrays.items() if n.startswith(_ENCODING)}
        images = Encoding(arrays=stored, **metadata["encoding"])
    else:
        images = arrays["images"]
    return DistilledSet(
        images,
        arrays["labels"],
        normalization=Normalization(arrays["normalization.mean"], arrays["normalization.std"], zca),
        class_names=tuple(metadata["class_names"]),
        sample_weight=arrays["sample_weight"],
        soft_labels=arrays.get("soft_labels"),
        soft_label_kind=metadata["soft_label_kind"],
        student_lr=metadata["student_lr"],
        provenance=Provenance(**metadata["provenance"]),
    )
