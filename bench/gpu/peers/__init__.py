# SPDX-License-Identifier: Apache-2.0
"""Who is measured on a GPU, in the order of the tables."""

from __future__ import annotations

from bench.gpu.peers.cuvs import Cuvs
from bench.gpu.peers.faiss import Faiss
from bench.gpu.peers.flash import Flash
from bench.gpu.peers.interface import Contestant
from bench.gpu.peers.subject import HostSubject, Subject
from bench.gpu.peers.torch_lines import TorchLines

SUBJECT_KEY = "ddkern"


def contestants(keys: list[str] | None = None) -> list[Contestant]:
    """Return all of them, or those named (ddkern always first).

    Raises
    ------
    ValueError
        For a name that is not there; other forms of ddkern run only where they are named.
    """
    every: list[Contestant] = [
        Subject(),
        Subject("streaming"),
        Subject("gram"),
        HostSubject(),
        *(TorchLines(key) for key in ("fp32", "tf32", "bf16")),
        *(Flash(key) for key in ("tf32", "bf16")),
        Cuvs(),
        Faiss(),
    ]
    names = [contestant.key for contestant in every]
    if keys is None:
        return [c for c in every if c.key == SUBJECT_KEY or not c.key.startswith(SUBJECT_KEY)]
    if unknown := [key for key in keys if key not in names]:
        raise ValueError(f"{unknown} not among {names}")
    return [c for c in every if c.key == SUBJECT_KEY or c.key in keys]
