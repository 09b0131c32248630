# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ddkern.data import DistilledSet, ImageDataset, Normalization
from ddkern.evaluate.task import check_same_task
from helpers.coresets import make_dataset

REAL = make_dataset((2, 2, 2), (3, 4, 5))


def distilled_like(names: tuple[str, ...], shape: tuple[int, int, int] = (3, 4, 5)) -> DistilledSet:
    images = np.zeros((len(names), *shape), np.uint8)
    norm = Normalization.identity(shape[0])
    return DistilledSet(images, np.arange(len(names)), normalization=norm, class_names=names)


def renamed(names: tuple[str, ...]) -> ImageDataset:
    return replace(REAL, class_names=names)


@pytest.mark.parametrize(
    ("own", "real"),
    [
        (("a", "b", "c"), ("a", "b", "c")),
        (("0", "1", "2"), ("a", "b", "c")),
        (("a", "b", "c"), ("0", "1", "2")),
    ],
)
def test_same_task(own: tuple[str, ...], real: tuple[str, ...]) -> None:
    check_same_task(distilled_like(own), renamed(real), "test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"names": ("a", "b", "c"), "shape": (3, 5, 4)},
            r"distilled has images of shape \(3, 5, 4\), but test has images of shape \(3, 4, 5\)",
        ),
        ({"names": ("a", "b")}, "distilled has 2 classes, but test has 3"),
        ({"names": ("a", "c", "b")}, "class 1 of distilled is 'c', but that of test is 'b'"),
    ],
)
def test_another_task(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_same_task(distilled_like(**arguments), renamed(("a", "b", "c")), "test")
