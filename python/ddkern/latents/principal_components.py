# SPDX-License-Identifier: Apache-2.0
"""Leading principal components of rows that come a part at a time.

References
----------
H. Hotelling, "Analysis of a complex of statistical variables into principal components", Journal of
Educational Psychology 24, 1933.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import as_count

__all__ = ["check_n_components", "principal_components"]


def principal_components(
    parts: Iterable[NDArray[Any]], n_components: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and leading principal components, in one pass.

    The covariance is summed in float64 and takes a matrix of d x d values. A component has the sign
    that makes its entry of largest magnitude positive, the first one of several.

    Parameters
    ----------
    parts : iterable of ndarray of floats, shape (m, d)
        Any number of rows a part; at least one part.
    n_components : int
        At most d, and less than the number of rows.

    Returns
    -------
    mean : ndarray of float64, shape (d,)
    components : ndarray of float64, shape (d, n_components)
        Orthonormal columns, by descending variance.

    Raises
    ------
    ValueError
        If there are not as many components.
    """
    n = 0
    for part in parts:
        if n == 0:
            # Products of values far from 0 would cancel below; those around some row do not.
            shift = part[0].astype(np.float64)
            d = len(shift)
            total, products = np.zeros(d), np.zeros((d, d))
        values = part.astype(np.float64) - shift
        total += values.sum(axis=0)
        products += values.T @ values
        n += len(values)
    check_n_components(n_components, n, d)
    covariance = (products - np.outer(total, total) / n) / (n - 1)
    # eigh sorts by ascending variance.
    leading = np.linalg.eigh(covariance)[1][:, : -n_components - 1 : -1]
    largest = np.abs(leading).argmax(axis=0)
    return shift + total / n, leading * np.sign(leading[largest, np.arange(n_components)])


def check_n_components(n_components: Any, n: int, d: int) -> int:
    """``n_components`` as an int, if n rows of d values have as many principal components."""
    count = as_count("n_components", n_components)
    if count > min(n - 1, d):
        raise ValueError(
            f"n_components={count}; it must be at most {min(n - 1, d)} for {n} images of {d} values"
        )
    return count
