# SPDX-License-Identifier: Apache-2.0
"""The oracle's answers, each worked out once for all variants that ask for it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference import oracle


class Answers:
    """A cache of exact assignments, keyed by the bytes of rows and centroids."""

    def __init__(self) -> None:
        self._known: dict[bytes, NDArray[np.int64]] = {}
        self._row_digests: dict[int, tuple[Any, bytes]] = {}

    def nearest(
        self, x: NDArray[Any], centroids: NDArray[Any], n_nearest: int = 1
    ) -> NDArray[np.int64]:
        """Return `oracle.nearest_few`, as (n,) for one nearest."""
        digest = hashlib.sha256(self._digest_of_rows(x))
        digest.update(f"{centroids.dtype.str} {centroids.shape} {n_nearest}".encode())
        digest.update(np.ascontiguousarray(centroids).tobytes())
        key = digest.digest()
        if key not in self._known:
            answer = oracle.nearest_few(x, centroids, n_nearest)
            answer.flags.writeable = False
            self._known[key] = answer
        answer = self._known[key]
        return answer[:, 0] if n_nearest == 1 else answer

    def _digest_of_rows(self, x: NDArray[Any]) -> bytes:
        # Read-only rows are hashed once; the entry keeps them alive, so their id stays theirs.
        if not x.flags.writeable and id(x) in self._row_digests:
            return self._row_digests[id(x)][1]
        head = f"{x.dtype.str} {x.shape}".encode()
        digest = hashlib.sha256(head + np.ascontiguousarray(x).tobytes()).digest()
        if not x.flags.writeable:
            self._row_digests[id(x)] = (x, digest)
        return digest
