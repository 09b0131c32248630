# SPDX-License-Identifier: Apache-2.0
"""Noise by counter: that of an image is a function of a seed, the image's id and a purpose.

The generator is numpy's Philox-4x64-10 with the key ``(seed, id)``, whose raw output is the same in
all versions of numpy. Its counter begins at ``(0, 0, 0, purpose)``, so what is drawn for one
purpose never reaches what is drawn for another.

References
----------
G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", Annals of
Mathematical Statistics 29, 1958.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Purpose", "draw_normal", "draw_words"]


class Purpose(IntEnum):
    """What noise is drawn for. Part of the definition of every draw."""

    POSTERIOR = 0
    DIFFUSION = 1
    SAMPLER_STEPS = 2


def draw_normal(
    seed: int, ids: NDArray[np.int64], purpose: Purpose, shape: Sequence[int]
) -> NDArray[np.float32]:
    """Independent standard normal numbers for each id.

    Parameters
    ----------
    seed : int
        0 <= seed < 2**64.
    ids : ndarray of int64, shape (n,), not negative
    purpose : Purpose
    shape : sequence of int
        Of what one id gets.

    Returns
    -------
    ndarray of float32, shape (n, *shape)
    """
    size = int(np.prod(shape))
    n_pairs = (size + 1) // 2
    # The upper 53 bits are all that a float64 holds. The logarithm takes numbers of (0, 1].
    uniform = (draw_words(seed, ids, purpose, 2 * n_pairs) >> np.uint64(11)) * 2.0**-53
    radius = np.sqrt(-2 * np.log(1 - uniform[:, :n_pairs]))
    angle = 2 * np.pi * uniform[:, n_pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return normal[:, :size].astype(np.float32).reshape(len(ids), *shape)


def draw_words(
    seed: int, ids: NDArray[np.int64], purpose: Purpose, count: int
) -> NDArray[np.uint64]:
    """The first ``count`` random words of each id: uint64, shape (n, count)."""
    words = np.empty((len(ids), count), np.uint64)
    for row, key in enumerate(ids.tolist()):
        generator = np.random.Philox(
            key=np.array([seed, key], np.uint64), counter=np.array([0, 0, 0, purpose], np.uint64)
        )
        words[row] = generator.random_raw(count)
    return words
