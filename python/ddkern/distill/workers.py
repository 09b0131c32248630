# SPDX-License-Identifier: Apache-2.0
"""Several processes that share one piece of work, as ``torchrun`` starts them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

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

    def first(self, work: Callable[[], T]) -> T | None:
        """What ``work`` gives in the first process, while the others wait; None in those.

        Raises
        ------
        ConnectionAbortedError
            In the others, if it raised an exception in the first one.
        """
        made, error = None, None
        if self.rank == 0:
            try:
                made = work()
            except BaseException as caught:  # noqa: BLE001  # raised again below
                error = caught
        failed = self._from_first(error is not None)
        if error is not None:
            raise error
        if failed:
            raise ConnectionAbortedError("the first process failed; its message says why")
        return made

    def same(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in the first process, in all of them; raises as :meth:`first`."""
        made = self.first(work)
        return cast(T, self._from_first(made))

    def _from_first(self, value: Any) -> Any:
        """The value that the first process has, in all of them."""
        if self.count == 1:
            return value
        from torch import distributed

        sent = [value]
        distributed.broadcast_object_list(sent)
        return sent[0]
