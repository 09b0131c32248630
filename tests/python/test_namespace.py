# SPDX-License-Identifier: Apache-2.0
"""The names of ``ddkern`` and the examples in its docstrings."""

from __future__ import annotations

import doctest
import importlib

import pytest

import ddkern

FUNCTIONS = ("assign", "quantize", "seed_centroids", "show_config")


@pytest.mark.parametrize("name", sorted(set(ddkern.__all__) - {"__version__"}))
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(ddkern, name).__name__ == name
    assert name in dir(ddkern)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_top_level_functions_are_those_of_kmeans(name: str) -> None:
    assert getattr(ddkern, name) is getattr(ddkern.kmeans, name)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'ddkern' has no attribute 'quantise'"):
        _ = ddkern.quantise


def test_version_is_that_of_the_extension() -> None:
    assert importlib.import_module("ddkern._core").__version__ == ddkern.__version__


@pytest.mark.parametrize(
    "module",
    [
        "ddkern.augment.dsa",
        "ddkern.distill.make",
        "ddkern.distill.method",
        "ddkern.estimators.kmeans",
        "ddkern.kmeans.fit",
        "ddkern.kmeans.nearest",
        "ddkern.kmeans.seeding",
        "ddkern.models.make",
    ],
)
def test_docstring_examples(module: str) -> None:
    if module.startswith(("ddkern.distill.method", "ddkern.estimators")):
        pytest.importorskip("sklearn")
    if module.startswith(("ddkern.augment", "ddkern.models")):
        pytest.importorskip("torch")
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert attempted > 0
    assert failed == 0
