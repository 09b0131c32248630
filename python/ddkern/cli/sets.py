# SPDX-License-Identifier: Apache-2.0
"""Sets and data sets from paths, and what there is to say about a set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from ddkern.checks import as_count
from ddkern.cli.arguments import naming
from ddkern.cli.output import print_table
from ddkern.data import (
    DistilledSet,
    Encoding,
    ImageDataset,
    Normalization,
    load_pt_files,
    open_dataset,
)
from ddkern.data.decoding import LARGEST_SIDE

__all__ = [
    "MOST_CLASSES_SHOWN",
    "DataOptions",
    "check_normalization",
    "choose_normalization",
    "describe_classes",
    "describe_set",
    "is_native",
    "load_set",
    "print_classes",
    "size_on_disk",
]

_FITTED = ("fit", "zca")

# Longer tables are cut: --json has every class.
MOST_CLASSES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Which data set, and how its encoded images are read; see :func:`ddkern.data.open_dataset`."""

    path: str
    size: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        for name in ("size", "channels"):
            value = getattr(self, name)
            if value is not None and self.path == "digits":
                raise ValueError(f"--{name}={value} is for encoded images, not --dataset digits")
        if self.size is not None:
            as_count("--size", self.size, at_most=LARGEST_SIDE)
        if self.channels not in (None, 1, 3):
            raise ValueError(f"--channels={self.channels}; it must be 1 or 3")

    def open(self, split: str | None = None) -> ImageDataset:
        """One part of it."""
        with naming("--dataset"):
            return open_dataset(self.path, split=split, size=self.size, channels=self.channels)

    def training(self) -> ImageDataset:
        """The images to learn from: the split "train", or all of a data set without splits."""
        opened = self.open()
        if opened.split not in (None, "train"):
            raise ValueError(
                f"--dataset: {self.path!r} holds only the split {opened.split!r}; it must have "
                "'train'"
            )
        return opened

    def test(self) -> ImageDataset | None:
        """The split "test", or None where there is none.

        Raises
        ------
        ValueError
            If it cannot be read, or its images have another shape than those for training.
        """
        from ddkern.data.readers.layout import MissingSplitError

        try:
            opened = open_dataset(self.path, split="test", size=self.size, channels=self.channels)
        except MissingSplitError:
            return None
        expected = self.training().image_shape
        if opened.image_shape != expected:
            raise ValueError(
                f"--dataset: images of the split 'test' of {self.path!r} have the shape "
                f"{opened.image_shape}, those for training {expected}; --size and --channels make "
                "them alike"
            )
        return opened


def choose_normalization(name: str, train: ImageDataset | None, channels: int) -> Normalization:
    """A normalization by the name that the command line has for it.

    Parameters
    ----------
    name : str
        "fit", "zca", "identity", or one of :meth:`Normalization.published`.
    train : ImageDataset or None
        For the first two.
    channels : int
    """
    if name in _FITTED:
        if train is None:
            raise ValueError(
                f"--normalization={name!r} is fitted to training images, and there are none here"
            )
        return Normalization.fit(train, zca=name == "zca")
    if name == "identity":
        return Normalization.identity(channels)
    with naming("--normalization"):
        return Normalization.published(name)


def check_normalization(name: str, train: ImageDataset) -> None:
    """Raise ValueError unless the name is known and fits the images. Reads none of them."""
    if name not in _FITTED:
        chosen = choose_normalization(name, train, train.image_shape[0])
        with naming(f"--normalization={name!r}"):
            chosen.check_shape(train.image_shape, "dataset")


def load_set(path: Path, normalization: Normalization | None = None) -> DistilledSet:
    """A set from its own file, or from ``.pt`` files, which need their normalization told.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such thing at the path, or the normalization is missing or too much.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"SET={str(path)!r} does not exist; it must be a .safetensors file, or .pt files"
        )
    with naming("SET"):
        if is_native(path):
            if normalization is not None:
                raise ValueError(f"{path} has its own normalization; leave out --normalization")
            return DistilledSet.load(path)
        if normalization is None:
            raise ValueError(
                f"{path} is in .pt files, which do not say what the images were normalised with; "
                "give --normalization"
            )
        return load_pt_files(path, normalization=normalization)


def is_native(path: Path) -> bool:
    """Whether a set at this path is in a file of ddkern's own."""
    return not path.is_dir() and path.suffix != ".pt"


def describe_classes(distilled: DistilledSet) -> list[dict[str, Any]]:
    """Images and weights of each class.

    ``effective_images`` is (sum w)^2 / sum w^2: how many images of equal weight the weights are
    worth.
    """
    rows = []
    for label, name in enumerate(distilled.class_names):
        weight = distilled.sample_weight[distilled.labels == label]
        # Divided by the largest first: squares of very large or small weights leave the range.
        scaled = weight / weight.max()
        rows.append(
            {
                "label": label,
                "name": name,
                "images": len(weight),
                "weight_min": float(weight.min()),
                "weight_max": float(weight.max()),
                "effective_images": float(scaled.sum() ** 2 / np.square(scaled).sum()),
            }
        )
    return rows


def describe_set(distilled: DistilledSet, path: Path) -> dict[str, Any]:
    """Everything about a set but its images, as plain values."""
    images, norm = distilled.images, distilled.normalization
    stored = images.decoder if isinstance(images, Encoding) else str(images.dtype)
    soft = distilled.soft_labels
    return {
        "set": str(path),
        "bytes": size_on_disk(path),
        "images": len(distilled),
        "image_shape": list(distilled.image_shape),
        "stored_as": stored,
        "provenance": asdict(distilled.provenance),
        "normalization": {
            "mean": norm.mean.tolist(),
            "std": norm.std.tolist(),
            "zca": norm.zca is not None,
        },
        "soft_labels": None
        if soft is None
        else {"kind": distilled.soft_label_kind, "dtype": str(soft.dtype)},
        "student_lr": distilled.student_lr,
        "classes": describe_classes(distilled),
    }


def print_classes(classes: list[dict[str, Any]]) -> None:
    """The table of :func:`describe_classes`."""
    total = sum(row["images"] for row in classes)
    print_table(
        ("class", "images", "share", "least weight", "largest", "effective images"),
        [
            (
                row["name"],
                str(row["images"]),
                f"{100 * row['images'] / total:.1f} %",
                f"{row['weight_min']:.4g}",
                f"{row['weight_max']:.4g}",
                f"{row['effective_images']:.2f}",
            )
            for row in classes[:MOST_CLASSES_SHOWN]
        ],
    )
    if len(classes) > MOST_CLASSES_SHOWN:
        rest = classes[MOST_CLASSES_SHOWN:]
        least, most = (f(row["images"] for row in rest) for f in (min, max))
        typer.echo(f"and {len(rest)} more classes of {least} to {most} images; --json has them all")


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
