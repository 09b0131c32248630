# SPDX-License-Identifier: Apache-2.0
"""Maps from weights of images to weights of losses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from ddkern.evaluate import loss_weight

LABELS = np.array([0, 0, 1, 1, 1])
WEIGHT = np.array([1.0, 3.0, 4.0, 1.0, 1.0])


def test_values_worked_out_by_hand() -> None:
    assert loss_weight(WEIGHT, LABELS, "uniform").tolist() == [1] * 5
    assert loss_weight(WEIGHT, LABELS, "density") == pytest.approx([0.5, 1.5, 2, 0.5, 0.5])
    root = np.array([1, 3**0.5]) * 2 / (1 + 3**0.5)
    assert loss_weight(WEIGHT, LABELS, "sqrt") == pytest.approx([*root, 1.5, 0.75, 0.75])


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=20),
    st.sampled_from(["uniform", "density", "sqrt"]),
    st.floats(1e-3, 1e3),
)
def test_mean_is_one_in_a_class_whatever_the_scale(values, weighting, scale: float) -> None:
    labels = np.arange(len(values)) % 3
    weight = np.array(values)
    mapped = loss_weight(weight, labels, weighting)
    means = np.bincount(labels, weights=mapped) / np.bincount(labels)
    assert means == pytest.approx(np.ones(3))
    assert loss_weight(scale * weight, labels, weighting) == pytest.approx(mapped)


def test_unknown_map() -> None:
    with pytest.raises(ValueError, match="weights='log'"):
        loss_weight(WEIGHT, LABELS, "log")
