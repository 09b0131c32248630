# SPDX-License-Identifier: Apache-2.0
"""Several processes that share one piece of work, as ``torchrun`` starts them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Workers"]

T = TypeVar("T")

# A process may wait for another one that quantizes or trains for long.
_TIMEOUT = datetime.timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Workers:
    """One process among those that work together.

    Attributes
    ----------
    rank, count : int
        ``0 <= rank < count``.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def of_environment(cls) -> Workers:
        """What ``RANK`` and ``WORLD_SIZE`` say; one process where they are not set.

        With several, the process group of torch is used, or made (gloo: files carry the data).

        Raises
        ------
        ValueError
            If only one of the two is set, or they do not fit together.
        """
        found = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
        if all(value is None for value in found.values()):
            return cls()
        try:
            rank, count = (int(value or "") for value in found.values())
        except ValueError:
            rank, count = -1, 0
        if not 0 <= rank < count:
            raise ValueError(
                f"RANK={found['RANK']!r} and WORLD_SIZE={found['WORLD_SIZE']!r}; they must be "
                "integers with 0 <= RANK < WORLD_SIZE, as torchrun sets them"
            )
        if count > 1:
            from torch import distributed

            if not distributed.is_initialized():
                distributed.init_process_group("gloo", timeout=_TIMEOUT)
        return cls(rank, count)

    def share(self, parts: Iterator[int]) -> Iterator[int]:
        """Those of the parts that this process works on."""
        return (part for part in parts if part % self.count == self.rank)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier()

    def same(self, work: Callable[[], str]) -> str:
        """What ``work`` gives in the first process, in all of them."""
        made = [work() if self.rank == 0 else ""]
        if self.count > 1:
            from torch import distributed

            distributed.broadcast_object_list(made)
        return made[0]

    def first(self, work: Callable[[], T]) -> T | None:
        """What ``work`` gives in the first process, while the others wait; None in those."""
        made = work() if self.rank == 0 else None
        self.wait()
        return made
