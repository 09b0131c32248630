# SPDX-License-Identifier: Apache-2.0
"""Lloyd iterations alone: same data, same seeds, same number of iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.shapes import LLOYD, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

SUITE = "lloyd"


@pytest.mark.parametrize("shape", LLOYD, ids=lambda shape: shape.name)
def bench_lloyd(measure: Callable[[Shape], None], shape: Shape) -> None:
    """One interleaved line of the table."""
    measure(shape)
