# SPDX-License-Identifier: Apache-2.0
"""Cutting a data set in two, the same way on every machine and with every version of numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_seed

__all__ = ["stratified_split"]


def stratified_split(
    labels: Any, test_fraction: float, random_state: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for testing, with the same share of every class in the test rows.

    Within a class, rows are ranked by a hash of seed and row number (the finalizer of splitmix64:
    Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014); the first
    ones are test rows. numpy's own streams may change between its versions, this rule does not.

    Parameters
    ----------
    labels : array of int, shape (n,)
    test_fraction : float
        In (0, 1). A class of m images gives ``floor(test_fraction * m + 1/2)`` of them, but keeps
        at least one for training.
    random_state : int
        In ``[0, 2**64)``.

    Returns
    -------
    train_rows, test_rows : ndarray of int64
        Ascending; together every row once.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule.
    """
    seed = as_seed("random_state", random_state)
    fraction = float(test_fraction)
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"test_fraction={test_fraction}; it must lie between 0 and 1")
    ids = np.asarray(labels)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise TypeError(
            f"labels has dtype {ids.dtype} and shape {ids.shape}; it must be one integer a row"
        )
    rank = _hash(seed, len(ids))
    in_test = np.zeros(len(ids), bool)
    for label in np.unique(ids):
        members = np.flatnonzero(ids == label)
        n_test = min(math.floor(fraction * len(members) + 0.5), len(members) - 1)
        in_test[members[np.argsort(rank[members], kind="stable")[:n_test]]] = True
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def _hash(seed: int, n: int) -> NDArray[np.uint64]:
    """One 64-bit number for each of n rows: splitmix64 from state ``seed``. Products wrap."""
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + step * np.arange(1, n + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
