# SPDX-License-Identifier: Apache-2.0
"""What the cost model chooses: a pure function, so it is tested without running anything."""

from __future__ import annotations

from typing import Any

import pytest

from ddkern import _core

GIB = 1 << 30
LATENTS = {"n_rows": 1300, "n_features": 4096}
CIFAR10 = {"n_rows": 5000, "n_features": 3072}


def plan(**changes: Any) -> dict[str, Any]:
    """Return the plan for ImageNet latents, k = 10, much memory, with some arguments changed."""
    arguments = {
        **LATENTS,
        "k": 10,
        "float64": False,
        "in_place": True,
        "fastest": "bfloat16",
        "init": "k-means++",
        "n_init": 1,
        "algorithm": "auto",
        "n_threads": 1,
        "max_memory": GIB,
    }
    return _core.plan(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "algorithm"),
    [
        ({"k": 10}, "streaming"),
        ({"k": 200}, "gram"),
        ({"k": 200, "fastest": "bytes"}, "streaming"),
        ({"k": 50, "n_init": 10}, "gram"),
        ({"k": 50, "n_init": 10, "fastest": "bytes"}, "gram"),
        ({"k": 10, "fastest": "bytes"}, "streaming"),
        ({"k": 10, "n_init": 50}, "gram"),
        ({**CIFAR10, "k": 10}, "streaming"),
        ({**CIFAR10, "k": 50}, "streaming"),
        ({"n_rows": 100_000, "n_features": 128, "k": 256}, "streaming"),
        ({"k": 50, "init": "array"}, "streaming"),
    ],
)
def test_auto_takes_gram_space_where_it_saves_products(
    changes: dict[str, Any], algorithm: str
) -> None:
    assert plan(**changes)["algorithm"] == algorithm


def test_gram_space_is_given_up_when_its_matrix_does_not_fit() -> None:
    assert plan(k=200, max_memory=64 << 20)["algorithm"] == "gram"
    assert plan(k=200, max_memory=16 << 20)["algorithm"] == "streaming"


def test_a_forced_gram_space_that_does_not_fit_is_an_error_that_says_how_much_it_needs() -> None:
    with pytest.raises(ValueError, match=r"is 'gram', which needs \d+ bytes .* 1300 rows"):
        plan(algorithm="gram", max_memory=4 << 20)


@pytest.mark.parametrize("algorithm", ["gram", "streaming"])
def test_a_forced_algorithm_is_taken(algorithm: str) -> None:
    assert plan(algorithm=algorithm)["algorithm"] == algorithm


@pytest.mark.parametrize("max_memory", [1, 1 << 20, 16 << 20, 64 << 20, 256 << 20, GIB])
@pytest.mark.parametrize("k", [1, 10, 200])
@pytest.mark.parametrize("fastest", ["float32", "bfloat16", "bytes"])
def test_the_plan_stays_within_the_budget(max_memory: int, k: int, fastest: str) -> None:
    made = plan(k=k, in_place=False, fastest=fastest, max_memory=max_memory)
    assert made["bytes"] <= max(0, max_memory - made["least_bytes"])


# tests/python/kmeans/test_memory.py compares the number itself with what calls take.
def test_restarts_threads_rows_and_centroids_need_memory_of_their_own() -> None:
    least = plan()["least_bytes"]
    one_result = 10 * LATENTS["n_features"] * 4
    assert plan(n_init=2)["least_bytes"] - least >= one_result
    assert plan(k=11)["least_bytes"] - least >= LATENTS["n_features"] * (8 + 2)
    assert plan(n_threads=3)["least_bytes"] - least >= 2 * 32 * LATENTS["n_features"] * (4 + 4)
    assert plan(n_rows=2300)["least_bytes"] - least >= 1000 * 70


def test_less_memory_keeps_less() -> None:
    everything = plan(in_place=False)
    nothing = plan(in_place=False, max_memory=1)
    kept = ("keeps_rows", "keeps_f32_blocks", "keeps_fast_blocks", "caches_scores")
    assert all(everything[name] for name in kept)
    assert not any(nothing[name] for name in kept)


def test_rows_that_can_be_read_in_place_are_never_copied() -> None:
    assert not plan(in_place=True)["keeps_rows"]


def test_scores_are_not_cached_where_reading_them_costs_more_than_the_products() -> None:
    assert not plan(n_rows=100_000, n_features=128, k=256, max_memory=8 * GIB)["caches_scores"]
    many = plan(n_rows=20_000, n_features=768, k=1000, init="array", max_memory=8 * GIB)
    assert many["caches_scores"]


def test_seeding_needs_float32_blocks_and_given_seeds_do_not() -> None:
    assert plan()["keeps_f32_blocks"]
    assert not plan(init="array")["keeps_f32_blocks"]
    assert not plan(init="random")["keeps_f32_blocks"]


def test_where_bytes_screen_the_seeds_no_float32_blocks_are_kept() -> None:
    assert not plan(fastest="bytes")["keeps_f32_blocks"]
    assert plan(fastest="bytes")["keeps_fast_blocks"]
    assert plan(fastest="bytes", algorithm="gram")["keeps_f32_blocks"]


def test_an_unknown_format_is_an_error() -> None:
    with pytest.raises(ValueError, match="fastest is 'int4'"):
        plan(fastest="int4")
