# SPDX-License-Identifier: Apache-2.0
"""One way to open every data set: by what lies at a path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddkern.data.dataset import ImageDataset
from ddkern.data.decoding import parse_rules
from ddkern.data.readers.arrays import open_npy, open_npz
from ddkern.data.readers.digits import open_digits
from ddkern.data.readers.folder import has_class_folders, open_folder
from ddkern.data.readers.idx import find_idx_files, is_idx_name, open_idx
from ddkern.data.readers.parquet import open_parquet

__all__ = ["open_dataset"]

# The kinds of data sets at a path, in the order in which a folder is tried for them.
_KINDS = ("parquet", "idx", "npy", "folder", "npz")
_ENCODED = ("parquet", "folder")


def open_dataset(
    spec: str | os.PathLike[str] = "digits",
    *,
    split: str | None = None,
    channels: int | None = None,
    size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> ImageDataset:
    """Open a data set of labelled images. Nothing is downloaded, and no image is decoded yet.

    Parameters
    ----------
    spec : str or path-like
        ``"digits"`` for scikit-learn's handwritten digits, or a path to

        - a parquet file, or a folder with such files: encoded images and integer labels;
        - a folder with MNIST's IDX files, plain or with ``.gz``;
        - an ``.npz`` file, or a folder with ``.npy`` files, of images and labels;
        - a folder with one folder of images a class, or with such folders for each split.

        ``"<kind>:<path>"`` with kind ``parquet``, ``idx``, ``npz``, ``npy`` or ``folder`` says
        which it is; otherwise the files decide.
    split : str, optional
        ``"train"``, ``"validation"`` or ``"test"``, as the names of files and folders tell. By
        default the only part there is, or ``"train"`` of several.
    channels : int, optional
        1 reads encoded images as grey, 3 as RGB; by default the first image decides.
    size : int, optional
        Scale the shorter side of encoded images to this and cut out the middle. By default all
        images must have one size.
    image_column, label_column : str, optional
        Which columns of a parquet file to read, where that is not clear.

    Returns
    -------
    ImageDataset

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path, or nothing that is a data set.
    TypeError, ValueError
        If the files break a rule. The message names the file and, where there is one, the row.
    UnsupportedError
        If an optional package is missing.

    Examples
    --------
    >>> from ddkern.data import open_dataset
    >>> open_dataset("digits", split="test")
    ImageDataset('digits', split='test', images=359, classes=10, image_shape=(1, 8, 8))
    """
    kind, path = _parse_spec(spec)
    rules = parse_rules(channels, size)
    given = {
        "channels": (channels, _ENCODED),
        "size": (size, _ENCODED),
        "image_column": (image_column, ("parquet",)),
        "label_column": (label_column, ("parquet",)),
    }
    for name, (value, kinds) in given.items():
        if value is not None and kind not in kinds:
            raise ValueError(f"{name}={value!r} is for {' and '.join(kinds)} data sets, not {kind}")
    if kind == "digits":
        return open_digits(split)
    if kind == "parquet":
        return open_parquet(
            path, split, rules, image_column=image_column, label_column=label_column
        )
    if kind == "folder":
        return open_folder(path, split, rules)
    readers: dict[str, Callable[[Path, str | None], ImageDataset]] = {
        "idx": open_idx,
        "npy": open_npy,
        "npz": open_npz,
    }
    return readers[kind](path, split)


def _parse_spec(spec: Any) -> tuple[str, Path]:
    if not isinstance(spec, (str, os.PathLike)):
        raise TypeError(f"spec is a {type(spec).__name__}; it must be a string or a path")
    text = os.fspath(spec)
    if text == "digits":
        return "digits", Path()
    kind, colon, rest = text.partition(":")
    if colon and kind in _KINDS:
        path = Path(rest)
        _require_existing(path)
        return kind, path
    path = Path(text)
    _require_existing(path)
    return _kind_of(path), path


def _require_existing(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(
            f"{str(path)!r} does not exist; a data set is 'digits', or the path of a file or folder"
        )


def _kind_of(path: Path) -> str:
    if path.is_file():
        if path.suffix in (".parquet", ".npz", ".npy"):
            return path.suffix[1:]
        if is_idx_name(path.name):
            return "idx"
        raise FileNotFoundError(
            f"{path} is not a data set: a file must be .parquet, .npz, .npy, or named like "
            "train-images-idx3-ubyte"
        )
    if any(path.glob("*.parquet")) or any(path.glob("*/*.parquet")):
        return "parquet"
    if find_idx_files(path):
        return "idx"
    if any(path.glob("*.npy")):
        return "npy"
    if has_class_folders(path):
        return "folder"
    raise FileNotFoundError(
        f"{path} holds no data set; looked for *.parquet in it and in its folders, IDX files "
        "such as train-images-idx3-ubyte[.gz], *.npy, and folders with images"
    )
