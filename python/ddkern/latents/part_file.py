# SPDX-License-Identifier: Apache-2.0
"""An array on disk that is filled part by part and survives whatever interrupts that.

In a folder lie ``<name>.npy``, an ordinary file of numpy at its full size from the beginning,
``<name>.json``, what its content depends on, and for every finished part a witness
``<name>.parts/<part>.json`` with the checksum of its rows. A part is written, flushed to the disk,
and only then witnessed; what has no witness is written again. Parts are independent: several
processes may fill one file at once.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ddkern.checks import as_count
from ddkern.files import replaced_when_complete

__all__ = ["PartFile"]

# Bytes that a checksum takes in at once.
_READ_BYTES = 1 << 22


class PartFile:
    """An array of many rows in a file, written some rows at a time in any order.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    name : str
        Begins the names of its files.
    shape : tuple of int
        The whole array; the first axis is cut into parts.
    dtype : dtype
    part_rows : int
        Rows of a part; the last one may have fewer.
    conditions : mapping
        All that the content depends on, as plain values. A folder that holds an array of other
        conditions is refused.

    Raises
    ------
    ValueError
        If the folder holds an array of other conditions or a damaged one.
    OSError
        If the disk has no room for the whole array.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        *,
        part_rows: int,
        conditions: Mapping[str, Any],
    ) -> None:
        self.path = folder / f"{name}.npy"
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.part_rows = as_count("part_rows", part_rows)
        self.n_parts = -(-shape[0] // self.part_rows)
        self._parts = folder / f"{name}.parts"
        self._conditions_path = folder / f"{name}.json"
        self._conditions = {
            **json.loads(json.dumps(dict(conditions))),
            "shape": list(shape),
            "dtype": self.dtype.str,
            "part_rows": self.part_rows,
        }
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        )
        self._header = header.getvalue()
        self._row_bytes = self.dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        if self._conditions_path.exists():
            self._check_conditions()
        else:
            self._begin(folder)

    def missing(self) -> Iterator[int]:
        """Yield the parts that are not finished, in their order, each looked up when it is due."""
        for part in range(self.n_parts):
            if not self._witness(part).exists():
                yield part

    def rows_of(self, part: int) -> NDArray[np.int64]:
        """The rows of a part."""
        start = part * self.part_rows
        return np.arange(start, min(start + self.part_rows, self.shape[0]))

    def write(self, part: int, values: NDArray[Any]) -> None:
        """Finish a part.

        Raises
        ------
        ValueError
            If the values have another shape or are not finite; nothing is written then.
        OSError
            If the disk is full; the part stays unfinished then.
        """
        rows = self.rows_of(part)
        wanted = (len(rows), *self.shape[1:])
        if values.shape != wanted:
            raise ValueError(f"part {part} has shape {values.shape}; it must be {wanted}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            finite = np.isfinite(values).reshape(len(rows), -1).all(axis=1)
            raise ValueError(
                f"row {rows[np.argmin(finite)]} of {self.path.name} holds NaN or infinity"
            )
        data = np.ascontiguousarray(values, self.dtype).tobytes()
        with self.path.open("r+b") as file:
            file.seek(len(self._header) + int(rows[0]) * self._row_bytes)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with replaced_when_complete(self._witness(part)) as file:
            file.write(json.dumps({"crc32": zlib.crc32(data)}).encode())

    def read(self, *, verify: bool = True) -> NDArray[Any]:
        """The whole array as a read-only memory map.

        Parameters
        ----------
        verify : bool
            Compare every part with its checksum, which reads all of it once.

        Raises
        ------
        ValueError
            If a part is missing, or is not what was written.
        """
        for part in self.missing():
            raise ValueError(
                f"{self.path} is not complete: part {part} of {self.n_parts} is missing"
            )
        values: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        if verify:
            for part in range(self.n_parts):
                if not self._is_sound(part):
                    rows = self.rows_of(part)
                    raise ValueError(
                        f"{self.path} is damaged: rows {rows[0]} to {rows[-1]} are not what was "
                        f"written. Delete {self._witness(part)} to have them made again"
                    )
        return values

    def _is_sound(self, part: int) -> bool:
        rows = self.rows_of(part)
        left = len(rows) * self._row_bytes
        crc = 0
        with self.path.open("rb") as file:
            file.seek(len(self._header) + int(rows[0]) * self._row_bytes)
            while left:
                data = file.read(min(left, _READ_BYTES))
                if not data:
                    return False
                crc = zlib.crc32(data, crc)
                left -= len(data)
        try:
            kept = json.loads(self._witness(part).read_text("utf-8"))
            return bool(kept["crc32"] == crc)
        except (ValueError, KeyError, TypeError):
            return False

    def _witness(self, part: int) -> Path:
        return self._parts / f"{part:06d}.json"

    @property
    def _size(self) -> int:
        return len(self._header) + self.shape[0] * self._row_bytes

    def _begin(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Left by a beginning that was cut short, when nothing was witnessed yet.
        shutil.rmtree(self._parts, ignore_errors=True)
        with replaced_when_complete(self.path) as file:
            file.write(self._header)
            file.flush()
            # Room is taken now: a disk that is full in the middle of the work costs more.
            os.posix_fallocate(file.fileno(), 0, self._size)
        self._parts.mkdir()
        with replaced_when_complete(self._conditions_path) as file:
            file.write((json.dumps(self._conditions, indent=1) + "\n").encode())

    def _check_conditions(self) -> None:
        try:
            found = json.loads(self._conditions_path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{self._conditions_path} is damaged: {error}") from error
        for name in sorted({*self._conditions, *found}):
            if found.get(name) != self._conditions.get(name):
                raise ValueError(
                    f"{self.path} was made with {name}={found.get(name)!r}; this call has "
                    f"{self._conditions.get(name)!r}. Choose another folder, or delete this one"
                )
        if not self.path.exists() or self.path.stat().st_size != self._size:
            raise ValueError(
                f"{self.path} is missing or of another size; delete {self.path.parent}"
            )
