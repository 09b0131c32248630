# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.answers import Answers
from helpers.isa import LEVELS, forced_isa

# Files that are run first, the longest in front: processes that share the tests take a file at a
# time, and at the end none should wait for another. The order of arguments does not do it: pytest 9
# drops those that another one includes.
FIRST = (
    "simt/test_kmeans.py",
    "python/distill/test_learned_digits.py",
    "python/kmeans/test_exactness.py",
    "python/cli/test_torchrun.py",
    "python/cli/test_resume.py",
    "python/priors/test_fit.py",
    "python/kmeans/test_bitwise.py",
    "python/distill/test_unroll.py",
    "python/cli/test_disk_full.py",
    "python/kmeans/test_margins.py",
    "python/latents/test_diffusion.py",
    "python/cli/test_distill_latents.py",
    "python/cli/test_experts.py",
    "python/evaluate/test_evaluation.py",
    "architecture/test_isa_objects.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of `FIRST` in front; the others keep their order."""
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(FIRST)}
    missing = [str(path) for path in places if not path.is_file()]
    assert not missing, f"tests/conftest.py names files that do not exist: {missing}"
    items.sort(key=lambda item: places.get(item.path, len(FIRST)))


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
