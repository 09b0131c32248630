# SPDX-License-Identifier: Apache-2.0
"""Folder trees with one folder of image files a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddkern.data.dataset import ImageDataset, check_labels
from ddkern.data.decoding import EncodedImages, ImageRules
from ddkern.data.readers.layout import choose_split, split_in_name, words_of

__all__ = ["has_class_folders", "open_folder"]

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)


def open_folder(path: Path, split: str | None, rules: ImageRules) -> ImageDataset:
    """Open ``path/<class>/**/<image>``, or ``path/<split>/<class>/**/<image>``.

    Classes are the folders in the order of their names, images the files in the order of their
    paths; hidden files and files that are not images by their suffix are passed over.

    Parameters
    ----------
    path : Path
    split : str or None
    rules : ImageRules
    """
    chosen, root = choose_split(_split_folders(path), split, str(path))
    folders = _visible_folders(root)
    stray = sorted(file for file in root.iterdir() if _is_image(file.name) and file.is_file())
    if stray:
        raise ValueError(
            f"{stray[0]}: the label is missing: the image lies beside the class folders of {root}, "
            "not in one of them"
        )
    files: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        inside = sorted(_images_below(folder))
        if not inside:
            raise ValueError(f"{folder}: class {label} ({folder.name!r}) is empty: it has no image")
        files += inside
        labels += [label] * len(inside)
    names = [folder.name for folder in folders]
    ids, class_names = check_labels(np.array(labels, np.int64), names, str(root), str)
    source = EncodedImages.of(_FileStore(tuple(files)), rules)
    rows = np.arange(len(files))
    return ImageDataset(str(path), chosen, source, rows, ids, class_names, source.image_shape)


def has_class_folders(path: Path) -> bool:
    """Whether an image lies somewhere below a folder in ``path``."""
    return any(True for folder in _visible_folders(path) for _ in _images_below(folder))


def _split_folders(path: Path) -> dict[str | None, Path]:
    folders = _visible_folders(path)
    splits: dict[str | None, Path] = {
        split_in_name(folder.name): folder for folder in folders if len(words_of(folder.name)) == 1
    }
    # A class may be called "test"; only where all folders are splits do they mean it.
    if folders and len(splits) == len(folders) and None not in splits:
        return splits
    return {None: path}


def _visible_folders(path: Path) -> list[Path]:
    return sorted(item for item in path.iterdir() if item.is_dir() and item.name[0] != ".")


def _images_below(folder: Path) -> Iterator[str]:
    """Paths of image files; as strings, since there may be millions of them."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        yield from (os.path.join(place, name) for name in names if _is_image(name))  # noqa: PTH118


def _is_image(name: str) -> bool:
    return name[0] != "." and os.path.splitext(name)[1].lower() in _SUFFIXES  # noqa: PTH122


@dataclass(frozen=True, slots=True)
class _FileStore:
    files: tuple[str, ...]

    def fetch(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        for position, row in enumerate(rows.tolist()):
            yield position, Path(self.files[row]).read_bytes()

    def name_row(self, row: int) -> str:
        return f"{self.files[row]} (row {row})"
