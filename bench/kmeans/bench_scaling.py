# SPDX-License-Identifier: Apache-2.0
"""How the time of fixed-length Lloyd runs grows with n, D, k and the number of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.shapes import SCALING, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

SUITE = "scaling"


@pytest.mark.parametrize("shape", SCALING, ids=lambda shape: shape.name)
def bench_scaling(measure: Callable[[Shape], None], shape: Shape) -> None:
    """One interleaved line of the table."""
    measure(shape)
