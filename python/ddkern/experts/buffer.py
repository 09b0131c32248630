# SPDX-License-Identifier: Apache-2.0
"""Where networks went while they were trained, as files: expert trajectories.

A buffer is a folder. ``experts.json`` says what the networks are and what they were trained on;
``expert-00000.bin`` and so on hold one trajectory each: all parameters in one vector, in the order
of ``model.parameters()``, after every epoch and before the first one, without a header, row after
row. Rows are read one at a time through a memory map.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ddkern.checks import as_count, check_choice
from ddkern.experts.untrained import untrained_network
from ddkern.files import replaced_when_complete

__all__ = ["ExpertBuffer", "StoredDtype", "as_stored", "expert_path"]

StoredDtype: TypeAlias = Literal["float32", "bfloat16"]
_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_MANIFEST = "experts.json"
_FORMAT, _VERSION = "ddkern-experts", 1
_STRUCTURE = ("model", "model_options", "in_channels", "image_size", "n_classes")


@dataclass(frozen=True, slots=True, eq=False)
class ExpertBuffer:
    """Trajectories of networks that were trained in one way, each from weights of its own.

    Attributes
    ----------
    folder : Path
    conditions : mapping
        The network (``model``, ``model_options``, ``in_channels``, ``image_size``, ``n_classes``)
        and, where they are known, data, normalization and recipe.
    n_checkpoints : int
        Rows of each expert: one more than epochs.
    n_parameters : int
        Values of a row.
    dtype : {"float32", "bfloat16"}
        Of the files.
    numbers : tuple of int
        Of the experts that are complete, ascending.
    """

    folder: Path
    conditions: Mapping[str, Any]
    n_checkpoints: int
    n_parameters: int
    dtype: StoredDtype
    numbers: tuple[int, ...]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ExpertBuffer:
        """The buffer in a folder. Nothing in it is executed.

        Raises
        ------
        FileNotFoundError
            If there is no buffer.
        ValueError
            If the manifest is of something else, or a file has another size than it must.
        """
        place = Path(folder)
        path = place / _MANIFEST
        if not path.is_file():
            raise FileNotFoundError(
                f"{place} has no {_MANIFEST}; a buffer is a folder that train_experts() or "
                "import_replay_buffers() made"
            )
        try:
            content = json.loads(path.read_text("utf-8"))
            known = (content["format"], content["format_version"]) == (_FORMAT, _VERSION)
            fields = {
                "conditions": content["conditions"],
                "n_checkpoints": as_count("n_checkpoints", content["n_checkpoints"], at_least=2),
                "n_parameters": as_count("n_parameters", content["n_parameters"]),
                "dtype": check_choice("dtype", content["dtype"], tuple(_DTYPES)),
            }
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not the manifest of a buffer: {error}") from error
        if not known:
            raise ValueError(
                f"{path} has the format {content['format']!r} version "
                f"{content['format_version']!r}; it must be {_FORMAT!r} version {_VERSION}"
            )
        files = sorted(place.glob("expert-*.bin"))
        numbers = tuple(int(file.stem.removeprefix("expert-")) for file in files)
        found = cls(folder=place, numbers=numbers, **fields)
        for number in numbers:
            found._check_size(number)
        return found

    @classmethod
    def create(
        cls,
        folder: Path,
        conditions: Mapping[str, Any],
        *,
        n_checkpoints: int,
        n_parameters: int,
        dtype: StoredDtype,
    ) -> ExpertBuffer:
        """A new buffer without experts, or the one of the same kind that is there.

        Raises
        ------
        ValueError
            If the folder has a buffer of another kind. The message names what differs.
        """
        check_choice("dtype", dtype, tuple(_DTYPES))
        content = {
            "format": _FORMAT,
            "format_version": _VERSION,
            "n_checkpoints": n_checkpoints,
            "n_parameters": n_parameters,
            "dtype": dtype,
            "conditions": json.loads(json.dumps(dict(conditions))),
        }
        path = folder / _MANIFEST
        if path.exists():
            there = cls.open(folder)
            before = {
                "n_checkpoints": there.n_checkpoints,
                "n_parameters": there.n_parameters,
                "dtype": there.dtype,
                **there.conditions,
            }
            now = {name: content[name] for name in ("n_checkpoints", "n_parameters", "dtype")}
            now |= content["conditions"]
            for name in sorted({*before, *now}):
                if before.get(name) != now.get(name):
                    raise ValueError(
                        f"{folder} has a buffer with {name}={before.get(name)!r}, not "
                        f"{now.get(name)!r}; another buffer needs another folder"
                    )
            return there
        folder.mkdir(parents=True, exist_ok=True)
        with replaced_when_complete(path) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())
        return cls.open(folder)

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return (
            f"ExpertBuffer({len(self)} experts, {self.n_checkpoints} checkpoints of "
            f"{self.n_parameters} parameters, {self.dtype}, {self.conditions.get('model')!r})"
        )

    def parameters(self, number: int, checkpoint: int) -> Tensor:
        """Where an expert was after so many epochs.

        Parameters
        ----------
        number : int
            One of ``numbers``.
        checkpoint : int
            ``0 <= checkpoint < n_checkpoints``; 0 is before the training.

        Returns
        -------
        Tensor of float32, shape (n_parameters,)
            On the CPU.

        Raises
        ------
        ValueError
            If there is no such row, the file was cut off, or the row holds NaN or infinity.
        """
        if number not in self.numbers:
            raise ValueError(f"number={number}; {self.folder} has the experts {self.numbers}")
        as_count("checkpoint", checkpoint, at_least=0, at_most=self.n_checkpoints - 1)
        self._check_size(number)
        bits = np.uint16 if self.dtype == "bfloat16" else np.float32
        path = expert_path(self.folder, number)
        rows = np.memmap(path, bits, "r", shape=(self.n_checkpoints, self.n_parameters))
        row = torch.from_numpy(np.array(rows[checkpoint]))
        if self.dtype == "bfloat16":
            row = row.view(torch.bfloat16).float()
        if not torch.isfinite(row).all():
            raise ValueError(f"{path} holds NaN or infinity in checkpoint {checkpoint}")
        return row

    def network(self) -> nn.Module:
        """A network of the kind that was trained, with other weights.

        Raises
        ------
        ValueError
            If it has another number of parameters than the trajectories.
        """
        network = untrained_network(self.conditions, 0)
        count = sum(parameter.numel() for parameter in network.parameters())
        if count != self.n_parameters:
            raise ValueError(
                f"{self.folder} has trajectories of {self.n_parameters} parameters, but "
                f"{self.conditions['model']} has {count}"
            )
        return network

    def accuracies(self) -> dict[int, float]:
        """Accuracies on test images after the last epoch, of the experts that were tested."""
        found = {}
        for number in self.numbers:
            path = expert_path(self.folder, number).with_suffix(".json")
            if path.exists():
                accuracy = json.loads(path.read_text("utf-8"))["accuracy"]
                if accuracy is not None:
                    found[number] = float(accuracy)
        return found

    def _check_size(self, number: int) -> None:
        path = expert_path(self.folder, number)
        expected = self.n_checkpoints * self.n_parameters * _DTYPES[self.dtype].itemsize
        size = path.stat().st_size
        if size != expected:
            raise ValueError(
                f"{path} has {size} bytes; {self.n_checkpoints} checkpoints of "
                f"{self.n_parameters} values in {self.dtype} are {expected}"
            )


def expert_path(folder: Path, number: int) -> Path:
    """The file of an expert."""
    return folder / f"expert-{number:05d}.bin"


def as_stored(parameters: Tensor | Sequence[Tensor], dtype: StoredDtype) -> bytes:
    """A row, or several after each other, as a file holds it."""
    tensors = [parameters] if isinstance(parameters, Tensor) else parameters
    flat = torch.cat([tensor.detach().cpu().reshape(-1).to(_DTYPES[dtype]) for tensor in tensors])
    host = flat.view(torch.int16) if dtype == "bfloat16" else flat
    return host.numpy().tobytes()
