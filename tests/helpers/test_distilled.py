# SPDX-License-Identifier: Apache-2.0
"""The comparison of distilled sets sees every difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddkern.data import Normalization, Provenance
from helpers.distilled import assert_same_set, make_set

KINDS = ("floats", "pixels", "zca", "parts", "low_rank")


@pytest.mark.parametrize("kind", KINDS)
def test_equal_sets_pass(kind: str) -> None:
    assert_same_set(make_set(kind), make_set(kind))


@pytest.mark.parametrize(
    "changes",
    [
        {"images": make_set().images + np.float32(1)},
        {"labels": make_set().labels[::-1]},
        {"sample_weight": np.ones(6)},
        {"soft_labels": None},
        {"soft_labels": make_set().soft_labels[::-1]},
        {"soft_label_kind": "targets"},
        {"student_lr": 0.5},
        {"class_names": ("a", "b", "c")},
        {"provenance": Provenance(method="dm")},
        {"normalization": Normalization.published("cifar10")},
        {"normalization": make_set("zca").normalization},
        {"images": make_set("low_rank").images},
    ],
)
def test_differences_are_seen(changes: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        assert_same_set(replace(make_set(), **changes), make_set())


def test_different_encodings_are_seen() -> None:
    one = make_set("low_rank")
    assert not isinstance(one.images, np.ndarray)
    left = {**one.images.arrays, "left": one.images.arrays["left"] * 2}
    with pytest.raises(AssertionError):
        assert_same_set(replace(one, images=replace(one.images, arrays=left)), one)
