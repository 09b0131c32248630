# SPDX-License-Identifier: Apache-2.0
"""Comparing results bit by bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Every field of a result that belongs to the answer, not to the way it was computed.
ANSWER_FIELDS = (
    "centroids",
    "weights",
    "groups",
    "assignment",
    "distortion",
    "distortion_history",
    "inertia",
    "n_iter",
    "converged",
)


def as_numpy(value: Any) -> NDArray[Any]:
    """Return an array of any library as numpy; a sequence of arrays end to end."""
    if isinstance(value, (tuple, list)):
        return np.concatenate([np.empty(0), *(as_numpy(part).reshape(-1) for part in value)])
    return np.asarray(value)


def fingerprint(result: Any) -> str:
    """Return a hash of the bytes of centroids, weights and assignment."""
    digest = hashlib.sha256()
    for name in ("centroids", "weights", "assignment"):
        array = as_numpy(getattr(result, name))
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def assert_same_array_bits(actual: Any, expected: Any, name: str) -> None:
    """Fail unless two arrays have the same dtype, shape and bytes: -0 is not 0, NaN is NaN."""
    a, e = as_numpy(actual), as_numpy(expected)
    assert a.dtype == e.dtype, f"{name}: dtype {a.dtype} is not {e.dtype}"
    assert a.shape == e.shape, f"{name}: shape {a.shape} is not {e.shape}"
    if a.tobytes() == e.tobytes():
        return
    size = a.dtype.itemsize
    bytes_a = np.frombuffer(a.tobytes(), np.uint8).reshape(-1, size)
    bytes_e = np.frombuffer(e.tobytes(), np.uint8).reshape(-1, size)
    where = np.flatnonzero((bytes_a != bytes_e).any(axis=1))
    first = np.unravel_index(where[0], a.shape)
    raise AssertionError(
        f"{name}: {len(where)} of {a.size} values differ in their bits, the first at "
        f"{tuple(int(i) for i in first)}: {a[first]!r} is not {e[first]!r}"
    )


def assert_same_bits(actual: Any, expected: Any, fields: Iterable[str] = ANSWER_FIELDS) -> None:
    """Fail unless two results agree in every bit of `fields`, naming the first that does not."""
    for name in fields:
        assert_same_array_bits(getattr(actual, name), getattr(expected, name), name)
