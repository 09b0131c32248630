# SPDX-License-Identifier: Apache-2.0
"""Parquet files with encoded images and integer labels, as the Hugging Face hub stores them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddkern.data.dataset import ImageDataset, check_labels
from ddkern.data.decoding import EncodedImages, ImageRules
from ddkern.data.readers.layout import choose_split, split_in_name
from ddkern.optional import import_optional

__all__ = ["open_parquet"]

_LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")


def open_parquet(
    path: Path,
    split: str | None,
    rules: ImageRules,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
) -> ImageDataset:
    """Open one parquet file, or all files of a split below a folder.

    Labels are read now and images when they are asked for, a row group at a time: memory holds
    the encoded images of one row group.

    Parameters
    ----------
    path : Path
    split : str or None
        Told by the words in the names of files, or of the folders they lie in.
    rules : ImageRules
    image_column : str, optional
        Holds bytes, or a struct with a field ``bytes``; by default the only such column.
    label_column : str, optional
        Holds integers; by default the only integer column, or the one called ``label``,
        ``labels``, ``fine_label``, ``class`` or ``target``.
    """
    chosen, files = _files_of(path, split)
    tables = [_Table(file, image_column, label_column) for file in files]
    store = _ParquetStore(tables)
    labels = np.concatenate([table.labels() for table in tables])
    names = _class_names(tables[0])
    labels, class_names = check_labels(labels, names, str(path), store.name_row)
    source = EncodedImages.of(store, rules)
    rows = np.arange(len(labels))
    return ImageDataset(str(path), chosen, source, rows, labels, class_names, source.image_shape)


def _files_of(path: Path, split: str | None) -> tuple[str | None, list[Path]]:
    if path.is_file():
        return (split or split_in_name(path.stem)), [path]
    found: dict[str | None, list[Path]] = {}
    for file in sorted(path.rglob("*.parquet")):
        inside = file.relative_to(path)
        words = split_in_name(inside.stem) or split_in_name(" ".join(inside.parent.parts))
        found.setdefault(words, []).append(file)
    return choose_split(found, split, str(path))


class _Table:
    """One file: where its images and labels are."""

    def __init__(self, path: Path, image_column: str | None, label_column: str | None) -> None:
        self.path = path
        file = self.open()
        self.schema = file.schema_arrow
        self.group_rows = [
            file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)
        ]
        self.image_column = self._pick("image_column", image_column, _holds_images, ())
        self.label_column = self._pick("label_column", label_column, _holds_labels, _LABEL_NAMES)

    def open(self) -> Any:
        parquet = import_optional("pyarrow.parquet", "reading parquet files", "data")
        pyarrow = import_optional("pyarrow", "reading parquet files", "data")
        try:
            return parquet.ParquetFile(self.path)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{self.path} is not a parquet file: {error}") from error

    def labels(self) -> NDArray[np.int64]:
        column = self.open().read([self.label_column]).column(0)
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy()))
            raise ValueError(f"{self.path}, row {row}: the label is missing")
        return np.asarray(column.to_numpy()).astype(np.int64)

    def group_images(self, group: int) -> Any:
        """The image column of a row group."""
        return self.open().read_row_group(group, [self.image_column]).column(0)

    def _pick(self, argument: str, name: str | None, test: Any, favoured: Sequence[str]) -> str:
        fitting = [field.name for field in self.schema if test(field.type)]
        columns = ", ".join(f"{field.name} ({field.type})" for field in self.schema)
        if name is not None:
            if name not in fitting:
                raise ValueError(
                    f"{argument}={name!r} is not such a column of {self.path}, which has {columns}"
                )
            return name
        preferred = [candidate for candidate in favoured if candidate in fitting] or fitting
        if not preferred or (len(preferred) > 1 and not favoured):
            raise ValueError(
                f"{self.path}: {len(preferred)} columns could be the {argument}; it has {columns}. "
                f"Name it with {argument}="
            )
        if len(fitting) > 1 and preferred is fitting:
            raise ValueError(
                f"{self.path}: {', '.join(fitting)} could all be the labels; choose with "
                f"{argument}="
            )
        return preferred[0]


def _holds_images(kind: Any) -> bool:
    types = import_optional("pyarrow.types", "reading parquet files", "data")
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_images(kind.field(index).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _holds_labels(kind: Any) -> bool:
    types = import_optional("pyarrow.types", "reading parquet files", "data")
    return bool(types.is_integer(kind))


def _class_names(table: _Table) -> list[str] | None:
    """The names that the ``datasets`` package writes into the schema, if they are there."""
    metadata = table.schema.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[table.label_column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names]


class _ParquetStore:
    """The encoded images of several files, end to end."""

    def __init__(self, tables: Sequence[_Table]) -> None:
        self._tables = tables
        self._groups = [
            (t, g) for t, table in enumerate(tables) for g in range(len(table.group_rows))
        ]
        sizes = [tables[t].group_rows[g] for t, g in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        table_rows = [sum(table.group_rows) for table in tables]
        self._table_starts = np.concatenate([[0], np.cumsum(table_rows)]).astype(np.int64)
        self._last: tuple[int, Any] | None = None

    def fetch(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            images = self._images_of(group)
            for position in np.flatnonzero(groups == group).tolist():
                row = int(rows[position])
                cell = images[row - int(self._starts[group])].as_py()
                data = cell["bytes"] if isinstance(cell, dict) else cell
                if data is None:
                    raise ValueError(f"{self.name_row(row)}: the image is missing")
                yield position, data

    def _images_of(self, group: int) -> Any:
        # Consecutive requests mostly fall into one group, which is kept until another is needed.
        last = self._last
        if last is None or last[0] != group:
            self._last = None
            table, inner = self._groups[group]
            last = (group, self._tables[table].group_images(inner))
            self._last = last
        return last[1]

    def name_row(self, row: int) -> str:
        table = int(np.searchsorted(self._table_starts, row, side="right")) - 1
        return f"{self._tables[table].path}, row {row - int(self._table_starts[table])}"
