# SPDX-License-Identifier: Apache-2.0
"""The helpers for coresets can fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddkern.data import DistilledSet, ImageDataset, Normalization, Provenance
from helpers.coresets import assert_coreset, inputs_of, make_dataset, rows_by_class

DATASET = make_dataset()


def _take(dataset: ImageDataset, rows: list[int]) -> DistilledSet:
    return DistilledSet(
        dataset.images(rows),
        dataset.labels[rows],
        normalization=Normalization.identity(1),
        class_names=dataset.class_names,
        provenance=Provenance(options={"rows": rows}),
    )


FIRST, SECOND = ([int(DATASET.rows_of_class(label)[i]) for label in range(3)] for i in (0, 1))


def test_good_coreset_passes() -> None:
    made = _take(DATASET, FIRST)
    assert_coreset(made, DATASET, 1)
    assert rows_by_class(made, DATASET) == [[0], [0], [0]]


@pytest.mark.parametrize(
    "rows",
    [FIRST[::-1], FIRST + SECOND, [row for row in FIRST for _ in range(2)]],
    ids=["order", "count", "twice"],
)
def test_bad_rows_are_caught(rows: list[int]) -> None:
    with pytest.raises(AssertionError):
        assert_coreset(_take(DATASET, rows), DATASET, len(rows) // 3)


def test_other_images_are_caught() -> None:
    made = _take(DATASET, FIRST)
    with pytest.raises(AssertionError, match="images"):
        assert_coreset(replace(made, images=255 - made.images), DATASET, 1)
    with pytest.raises(AssertionError):
        assert_coreset(replace(made, class_names=("a", "b", "c")), DATASET, 1)


def test_inputs_are_of_the_class() -> None:
    norm = Normalization.fit(DATASET)
    rows = np.flatnonzero(DATASET.labels == 1)
    expected = norm.apply(DATASET.images(rows)).reshape(2, 6)
    np.testing.assert_array_equal(inputs_of(DATASET, 1), expected)
