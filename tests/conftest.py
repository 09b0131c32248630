# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.answers import Answers
from helpers.isa import LEVELS, forced_isa


@pytest.fixture(params=LEVELS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once at every instruction set level, restoring the level afterwards."""
    with forced_isa(request.param) as level:
        yield level


@pytest.fixture(scope="session")
def answers() -> Answers:
    """Exact assignments, shared by every variant in the session."""
    return Answers()
