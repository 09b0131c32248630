# SPDX-License-Identifier: Apache-2.0
"""Greedy k-means++ seeding, then Lloyd to a tolerance of 1e-4: what a user waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.shapes import END_TO_END, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

SUITE = "end_to_end"


@pytest.mark.parametrize("shape", END_TO_END, ids=lambda shape: shape.name)
def bench_end_to_end(measure: Callable[[Shape], None], shape: Shape) -> None:
    """One interleaved line of the table."""
    measure(shape)
