# SPDX-License-Identifier: Apache-2.0
"""Expert trajectories in the files of MTT's code, ``replay_buffer_0.pt`` and so on.

Each is a list of experts, an expert a list of checkpoints, a checkpoint the list of its parameters.
TESLA, FTD, ATT and DATM write the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddkern.data.exchange.pt_files import read_pt_file
from ddkern.experts.buffer import ExpertBuffer, StoredDtype, as_stored, expert_path
from ddkern.experts.untrained import untrained_network
from ddkern.files import replaced_when_complete
from ddkern.progress import ProgressArgument, report_progress

__all__ = ["import_replay_buffers"]


def import_replay_buffers(
    files: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    n_classes: int,
    image_size: tuple[int, int],
    in_channels: int = 3,
    model: str = "convnet-d3",
    model_options: Mapping[str, Any] | None = None,
    dtype: StoredDtype = "float32",
    progress: ProgressArgument = None,
) -> ExpertBuffer:
    """Read files of MTT's code into a buffer. Nothing in them is executed.

    One file is in memory at a time, about 0.7 GB for ten experts of ConvNet-D3. An interrupted call
    leaves the experts that are complete, and goes on with the others when it is repeated.

    Parameters
    ----------
    files : sequence of path-like
        In the order in which experts are numbered.
    folder : path-like
        For the buffer.
    n_classes, image_size, in_channels, model, model_options
        The network, as in :func:`ddkern.models.make_model`; the files do not say which it is.
    dtype : {"float32", "bfloat16"}
        Of the new files.
    progress : bool or callable, optional
        See :mod:`ddkern.progress`; counts files.

    Returns
    -------
    ExpertBuffer

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ValueError
        If a file holds something else, is cut off, or its tensors do not fit the network.
    """
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; it must be a replay_buffer_*.pt file")
    if not paths:
        raise ValueError("files is empty; it must name one file at least")
    structure = {
        "model": model,
        "model_options": dict(model_options or {}),
        "in_channels": in_channels,
        "image_size": list(image_size),
        "n_classes": n_classes,
    }
    shapes = [tuple(p.shape) for p in untrained_network(structure, 0).parameters()]
    conditions = {**structure, "files": [path.name for path in paths]}
    start = time.monotonic()
    buffer: ExpertBuffer | None = None
    number = 0
    with report_progress(progress, "import experts", "files") as record:
        for index, path in enumerate(paths):
            for position, expert in enumerate(_experts_of(path)):
                where = f"{path}, expert {position}"
                _check(expert, shapes, where)
                if buffer is None:
                    buffer = ExpertBuffer.create(
                        Path(folder),
                        conditions,
                        n_checkpoints=len(expert),
                        n_parameters=sum(tensor.numel() for tensor in expert[0]),
                        dtype=dtype,
                    )
                if len(expert) != buffer.n_checkpoints:
                    raise ValueError(
                        f"{where} has {len(expert)} checkpoints, others {buffer.n_checkpoints}; "
                        "they must have the same number"
                    )
                if number not in buffer.numbers:
                    _write(buffer, number, expert)
                number += 1
            if record is not None:
                record(index + 1, len(paths), time.monotonic() - start, path.name)
    return ExpertBuffer.open(folder)


def _experts_of(path: Path) -> list[list[list[Tensor]]]:
    content = read_pt_file(path)
    if not isinstance(content, list) or not content:
        raise ValueError(
            f"{path} holds a {type(content).__name__}; it must be a list of experts, one at least"
        )
    return content


def _check(expert: Any, shapes: list[tuple[int, ...]], where: str) -> None:
    if not isinstance(expert, list) or len(expert) < 2:
        raise ValueError(f"{where} must be a list of two checkpoints or more")
    for checkpoint, parameters in enumerate(expert):
        tensors = parameters if isinstance(parameters, list) else []
        if not all(isinstance(tensor, Tensor) for tensor in tensors) or not tensors:
            raise ValueError(f"{where}, checkpoint {checkpoint} must be a list of tensors")
        found = [tuple(tensor.shape) for tensor in tensors]
        if found != shapes:
            raise ValueError(
                f"{where}, checkpoint {checkpoint} has tensors of shapes {found}; the network "
                f"has {shapes}"
            )
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise ValueError(f"{where}, checkpoint {checkpoint} holds NaN or infinity")


def _write(buffer: ExpertBuffer, number: int, expert: list[list[Tensor]]) -> None:
    path = expert_path(buffer.folder, number)
    with replaced_when_complete(path.with_suffix(".json")) as file:
        file.write((json.dumps({"accuracy": None, "seed": None}) + "\n").encode())
    with replaced_when_complete(path) as file:
        for parameters in expert:
            file.write(as_stored(parameters, buffer.dtype))
