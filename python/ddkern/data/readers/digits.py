# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's handwritten digits: 1797 images of 8 x 8, there without a download."""

from __future__ import annotations

import numpy as np

from ddkern.data.dataset import ImageDataset
from ddkern.data.readers.arrays import dataset_of_arrays
from ddkern.data.readers.layout import choose_split
from ddkern.optional import import_optional

__all__ = ["open_digits"]

_TEST_FRACTION = 0.2
_RANDOM_STATE = 0


def open_digits(split: str | None) -> ImageDataset:
    """Open the digits that scikit-learn brings along.

    They have no official parts: a fifth of every class, drawn by the rule of
    :func:`ddkern.data.stratified_split` with seed 0, is the test set; ``split="all"`` is both.
    Their values 0 to 16 become 0 to 255, rounded.

    Parameters
    ----------
    split : str or None
        ``"train"`` (and None), ``"test"`` or ``"all"``.
    """
    sklearn = import_optional("sklearn.datasets", "the data set 'digits'", "sklearn")
    digits = sklearn.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    whole = dataset_of_arrays(
        images,
        digits.target.astype(np.int64),
        name="digits",
        split="all",
        origin="digits",
        class_names=[str(digit) for digit in range(10)],
    )
    train, test = whole.divide(_TEST_FRACTION, _RANDOM_STATE)
    _, chosen = choose_split({"train": train, "test": test, "all": whole}, split, "digits")
    return chosen
