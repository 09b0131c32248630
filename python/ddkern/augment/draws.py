# SPDX-License-Identifier: Apache-2.0
"""Random numbers by counter: the same key gives the same numbers, in any order, on any device.

The generator is Philox-4x32-10. Its key is the 64-bit seed, low half first; its counter is
``(sample, step, iteration, purpose + 2**16 * block)``. A block of four words becomes four uniform
numbers, the word times 2**-32; what needs more numbers takes more blocks. All of it is integer
arithmetic on the CPU; devices only ever see finished numbers.

References
----------
J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddkern.checks import as_count, as_seed

__all__ = [
    "DrawKey",
    "Purpose",
    "as_samples",
    "check_key",
    "philox",
    "sample_ids",
    "uniform_integers",
]

WORD_LIMIT = 1 << 32

_WORD_MASK = np.uint64(WORD_LIMIT - 1)
_WORD_BITS = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

# Purposes have the lower half of the counter's last word, blocks the upper.
_BLOCK_LIMIT = 1 << 16


class Purpose(IntEnum):
    """What a number decides; the last word of the counter. Part of the definition of every draw."""

    OPERATION = 0
    COLOR = 1
    CROP = 2
    CUTOUT = 3
    FLIP = 4
    SCALE = 5
    ROTATE = 6
    MIX_SHARE = 7
    MIX_BOX = 8
    MIX_PARTNER = 9
    RESIZED_CROP = 10
    RESIZED_CROP_FLIP = 11
    PATCH_ROWS = 12
    PATCH_COLUMNS = 13


@dataclass(frozen=True, slots=True)
class DrawKey:
    """Where in a run a draw happens.

    Attributes
    ----------
    seed : int
        Of the run, 0 <= seed < 2**64.
    iteration : int
        Of the outer loop, 0 <= iteration < 2**32.
    step : int
        Whatever the caller counts within an iteration (an inner step, a class, a batch), 0 <= step
        < 2**32. Draws of one purpose with equal keys are equal: what must be independent needs a
        step, or a seed, of its own.

    Raises
    ------
    TypeError, ValueError
        If a field is not an integer of its range.
    """

    seed: int
    iteration: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        # Integers of numpy and torch become Python's: a key is compared, printed and stored.
        object.__setattr__(self, "seed", as_seed("seed", self.seed))
        for name in ("iteration", "step"):
            count = as_count(name, getattr(self, name), at_least=0, at_most=WORD_LIMIT - 1)
            object.__setattr__(self, name, count)

    def words(
        self, purpose: Purpose, samples: NDArray[np.int64], block: int = 0
    ) -> NDArray[np.uint32]:
        """Four random words for each sample.

        Parameters
        ----------
        purpose : Purpose
        samples : ndarray of int64, shape (n,), in [0, 2**32)
        block : int
            Which four, 0 <= block < 2**16.

        Returns
        -------
        ndarray of uint32, shape (4, n)
        """
        counter = np.empty((4, len(samples)), np.uint32)
        counter[0] = samples
        counter[1], counter[2] = self.step, self.iteration
        counter[3] = int(purpose) + _BLOCK_LIMIT * block
        return philox(counter, (self.seed % WORD_LIMIT, self.seed // WORD_LIMIT))

    def uniform(
        self, purpose: Purpose, samples: NDArray[np.int64], block: int = 0
    ) -> NDArray[np.float64]:
        """Four numbers in [0, 1) for each sample, shape (4, n), multiples of 2**-32."""
        return self.words(purpose, samples, block).astype(np.float64) * 2.0**-32


def philox(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Philox-4x32-10 of many counters under one key.

    Parameters
    ----------
    counter : ndarray of uint32, shape (4, n)
    key : (int, int)
        Two 32-bit words.

    Returns
    -------
    ndarray of uint32, shape (4, n)
    """
    c0, c1, c2, c3 = counter.astype(np.uint64)
    for turn in range(_ROUNDS):
        k0, k1 = (
            np.uint64((word + turn * step) % WORD_LIMIT)
            for word, step in zip(key, _KEY_STEPS, strict=True)
        )
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _WORD_BITS) ^ c1 ^ k0,
            product1 & _WORD_MASK,
            (product0 >> _WORD_BITS) ^ c3 ^ k1,
            product0 & _WORD_MASK,
        )
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def uniform_integers(
    uniform: NDArray[np.float64], count: int | NDArray[np.int64]
) -> NDArray[np.int64]:
    """Integers in [0, count) from numbers in [0, 1)."""
    return np.floor(uniform * count).astype(np.int64)


def as_samples(samples: ArrayLike, n_samples: int) -> NDArray[np.int64]:
    """The ids of a batch's images as int64 of shape (n_samples,), each in [0, 2**32)."""
    ids = np.asarray(samples)
    rule = f"it must hold one integer in [0, 2**32) for each of the {n_samples} images"
    if ids.dtype.kind not in "iu":
        raise TypeError(f"samples has dtype {ids.dtype.name}; {rule}")
    if ids.shape != (n_samples,):
        raise ValueError(f"samples has shape {ids.shape}; {rule}")
    outside = (ids < 0) | (ids >= WORD_LIMIT)
    if outside.any():
        raise ValueError(f"samples holds {ids[outside][0]}; {rule}")
    return ids.astype(np.int64)


def check_key(key: object) -> None:
    """Raise TypeError unless ``key`` is a :class:`DrawKey`."""
    if not isinstance(key, DrawKey):
        raise TypeError(f"key is a {type(key).__name__}; it must be a DrawKey")


def sample_ids(n_samples: int, siamese: bool, samples: ArrayLike | None) -> NDArray[np.int64]:
    """What the draws of a batch hang on: an id for each image, or a single one where siamese.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range, or ``samples`` is combined with
        ``siamese``.
    """
    n_samples = as_count("n_samples", n_samples)
    if siamese and samples is not None:
        raise ValueError("samples cannot be combined with siamese, where all images are alike")
    if siamese:
        return np.zeros(1, np.int64)
    if samples is None:
        return np.arange(n_samples, dtype=np.int64)
    return as_samples(samples, n_samples)
