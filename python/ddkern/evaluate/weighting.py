# SPDX-License-Identifier: Apache-2.0
"""From the weights of a distilled set to the weights of its losses."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ddkern.checks import check_choice

__all__ = ["WEIGHTINGS", "Weighting", "loss_weight"]

Weighting: TypeAlias = Literal["uniform", "density", "sqrt"]
WEIGHTINGS = ("uniform", "density", "sqrt")


def loss_weight(
    sample_weight: NDArray[np.float64], labels: NDArray[np.int64], weighting: Weighting
) -> NDArray[np.float64]:
    """What each image counts in the loss; the mean is 1 in every class.

    Parameters
    ----------
    sample_weight : ndarray of float64, shape (n,)
        Such as the masses of cells: at least 0, and above 0 somewhere in every class.
    labels : ndarray of int64, shape (n,)
    weighting : {"uniform", "density", "sqrt"}
        1; proportional to the weight; proportional to its square root. With the masses of an
        optimal quantization as weights, ``"density"`` makes the loss the integral over the
        quantized distribution (H. Y. Tan and E. Slade, arXiv 2501.07681); the root, between the
        two, varies less.

    Raises
    ------
    TypeError, ValueError
        If ``weighting`` is none of these.

    Notes
    -----
    An image of weight 0, an empty cell, counts nothing under ``"density"`` and ``"sqrt"``, and as
    much as all others under ``"uniform"``.
    """
    check_choice("weights", weighting, WEIGHTINGS)
    if weighting == "uniform":
        return np.ones(len(labels))
    values = np.sqrt(sample_weight) if weighting == "sqrt" else sample_weight.astype(np.float64)
    counts = np.bincount(labels)
    totals = np.bincount(labels, weights=values)
    return values * (counts / totals)[labels]
