# SPDX-License-Identifier: Apache-2.0
"""numpy's files: an ``.npz`` archive, or ``.npy`` files in one folder."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ddkern.data.dataset import ArrayImages, ImageDataset, check_labels
from ddkern.data.readers.layout import choose_split, split_in_name, words_of

__all__ = ["dataset_of_arrays", "open_npy", "open_npz"]

_ROLES = {
    "images": ("images", "image", "x", "data"),
    "labels": ("labels", "label", "y", "targets", "target"),
}
_NAMING = (
    "an array of images is named images, image, x or data, one of labels labels, label, y, targets "
    "or target, each with the split before or after it (x_train, test_labels), if there is one"
)

Loader = Callable[[], NDArray[Any]]


def open_npz(path: Path, split: str | None) -> ImageDataset:
    """Open an archive of arrays of images and labels: ``x_train``, ``y_train``, and so on.

    Images: uint8, (n, h, w), (n, h, w, c) or (n, c, h, w). Labels: integers, (n,) or (n, 1). An
    array ``class_names`` of strings names the classes. What was stored without compression is
    mapped, not read; compressed images are inflated into memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not an .npz file: {error}") from error
    loaders = {name[:-4]: _member_loader(path, name) for name in members}
    names = loaders.pop("class_names", None)
    class_names = None if names is None else [str(name) for name in names()]
    return _open_named(loaders, path, split, class_names)


def open_npy(path: Path, split: str | None) -> ImageDataset:
    """Open ``.npy`` files of images and labels that lie in one folder.

    They are called ``images.npy`` and ``labels.npy``, or ``x_train.npy`` and so on, and hold what
    :func:`open_npz` expects. They are mapped, not read.

    Parameters
    ----------
    path : Path
        The folder, or one of its files, which then decides the split.
    split : str or None
    """
    folder = path
    if path.is_file():
        folder, split = path.parent, split or split_in_name(path.stem)
    loaders = {file.stem: _file_loader(file) for file in sorted(folder.glob("*.npy"))}
    return _open_named(loaders, path, split, None)


def _open_named(
    loaders: dict[str, Loader], path: Path, split: str | None, class_names: list[str] | None
) -> ImageDataset:
    found: dict[str | None, dict[str, str]] = {}
    for name in loaders:
        for role, words in _ROLES.items():
            if set(words) & set(words_of(name)):
                part = found.setdefault(split_in_name(name), {})
                if role in part:
                    raise ValueError(f"{path}: both {part[role]} and {name} could be the {role}")
                part[role] = name
    has = ", ".join(loaders) or "none"
    if not found:
        raise ValueError(f"{path}: none of its arrays ({has}) is known; {_NAMING}")
    chosen, part = choose_split(found, split, str(path))
    for role in _ROLES:
        if role not in part:
            raise ValueError(f"{path}: the {role} are missing among its arrays ({has}); {_NAMING}")
    images, labels = loaders[part["images"]](), loaders[part["labels"]]()
    origin = f"{path}, {part['images']}"
    return dataset_of_arrays(
        images, labels, name=str(path), split=chosen, origin=origin, class_names=class_names
    )


def dataset_of_arrays(
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    name: str,
    split: str | None,
    origin: str,
    class_names: list[str] | None,
) -> ImageDataset:
    """A data set of arrays with one entry an image, after checking that they are that.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3
    labels : ndarray of integers, shape (n,) or (n, 1)
    name, split
        As in the data set.
    origin : str
        What messages call ``images``.
    class_names : list of str or None
    """
    pixels = _channels_first(images, origin)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if len(labels) != len(pixels):
        raise ValueError(
            f"{origin} holds {len(pixels)} images, but there are {len(labels)} labels; every image "
            "needs one"
        )
    source = ArrayImages(pixels, origin)
    ids, names = check_labels(labels, class_names, name, source.name_row)
    _, channels, height, width = pixels.shape
    rows = np.arange(len(ids))
    return ImageDataset(name, split, source, rows, ids, names, (channels, height, width))


def _channels_first(images: NDArray[Any], origin: str) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise TypeError(
            f"{origin} has dtype {images.dtype}; images must be stored in 8 bits (uint8, 0 to "
            "255): scale and round them first"
        )
    shape = images.shape
    if 0 in shape:
        raise ValueError(f"{origin} has shape {shape}, which holds no image")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4:
        first, last = shape[1] in (1, 3), shape[3] in (1, 3)
        if first and last:
            raise ValueError(
                f"{origin} has shape {shape}, in which the channels could be first or last; "
                "store it with an unambiguous shape"
            )
        if first:
            return images
        if last:
            return images.transpose(0, 3, 1, 2)
    raise ValueError(
        f"{origin} has shape {shape}; images must be (n, h, w), (n, h, w, c) or (n, c, h, w) with "
        "1 or 3 channels"
    )


def _file_loader(file: Path) -> Loader:
    def load() -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{file} is not an .npy file of numbers: {error}") from error
        return array

    return load


def _member_loader(path: Path, member: str) -> Loader:
    def load() -> NDArray[Any]:
        try:
            with zipfile.ZipFile(path) as archive:
                info = archive.getinfo(member)
            if info.compress_type == zipfile.ZIP_STORED:
                mapped = _map_member(path, info.header_offset)
                if mapped is not None:
                    return mapped
            with np.load(path, allow_pickle=False) as arrays:
                array: NDArray[Any] = arrays[member[:-4]]
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}, {member}: not an array of numbers: {error}") from error
        return array

    return load


def _map_member(path: Path, header_offset: int) -> NDArray[Any] | None:
    """A memory map of an uncompressed archive member; None for what numpy must read itself."""
    with path.open("rb") as file:
        # The local header has 30 bytes; the last four say how long name and extra field are.
        file.seek(header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(name_length + extra_length, 1)
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            return None
        if dtype.hasobject or 0 in shape or not shape:
            return None
        start = file.tell()
    order: Literal["F", "C"] = "F" if fortran_order else "C"
    mapped: NDArray[Any] = np.memmap(path, dtype, "r", start, tuple(shape), order)
    return mapped
