# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def tiny_dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a DiTPipeline for ten classes of colour images of 32 x 32."""
    pytest.importorskip("diffusers")
    from helpers.tiny_diffusers import save_tiny_dit

    return save_tiny_dit(tmp_path_factory.mktemp("checkpoints") / "dit")


@pytest.fixture(scope="session")
def tiny_stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a StableDiffusionPipeline for colour images of 32 x 32."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from helpers.tiny_diffusers import save_tiny_stable_diffusion

    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("checkpoints") / "stable-diffusion")
