# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern import _core, backend
from ddkern.kmeans import options


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_integers_of_any_kind(value: Any) -> None:
    count = options.as_count("k", value)
    assert type(count) is int
    assert count == 3


@pytest.mark.parametrize("value", [True, np.True_, 3.0, np.float32(3), "3", None, [3]])
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^n_init=.* is a \w+; it must be an integer of at least"):
        options.as_count("n_init", value)


@pytest.mark.parametrize("value", [0, -1, np.int64(-5)])
def test_too_small(value: Any) -> None:
    with pytest.raises(ValueError, match=f"^max_iter={value}; it must be .* at least 1$"):
        options.as_count("max_iter", value)


def test_too_large() -> None:
    assert options.as_count("n_init", 9, at_most=9) == 9
    rule = "it must be an integer of at least 1 and at most 9"
    with pytest.raises(ValueError, match=f"^n_init=10; {rule}$"):
        options.as_count("n_init", 10, at_most=9)
    with pytest.raises(TypeError, match=f"^n_init=2.0 is a float; {rule}$"):
        options.as_count("n_init", 2.0, at_most=9)


@pytest.mark.parametrize("value", [0, 1e-4, np.float32(0.5), 3])
def test_tolerances(value: Any) -> None:
    assert options.as_tol(value) == value


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf")])
def test_wrong_tolerance(value: float) -> None:
    with pytest.raises(ValueError, match="^tol=.*; it must be a finite number of at least 0$"):
        options.as_tol(value)


@pytest.mark.parametrize("value", [None, "1e-4", True, [1, 2], 1j])
def test_tolerance_of_wrong_type(value: Any) -> None:
    with pytest.raises(TypeError, match="^tol=.* is a "):
        options.as_tol(value)


def test_choice() -> None:
    assert options.check_choice("algorithm", "gram", ("auto", "gram")) == "gram"
    with pytest.raises(ValueError, match="^algorithm='gramm'; it must be one of 'auto', 'gram'$"):
        options.check_choice("algorithm", "gramm", ("auto", "gram"))
    with pytest.raises(TypeError, match="^algorithm is a NoneType; it must be one of"):
        options.check_choice("algorithm", None, ("auto", "gram"))


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_seeds(seed: int) -> None:
    assert options.as_seed("random_state", seed) == seed


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"^seeds={seed}; a seed .*0 <= seed < 2\*\*64"):
        options.as_seed("seeds", seed)


def test_seed_of_wrong_type() -> None:
    with pytest.raises(TypeError, match=r"^random_state=1\.5 is a float"):
        options.as_seed("random_state", 1.5)


def test_no_seed_draws_one() -> None:
    drawn = {options.draw_seed() for _ in range(8)}
    assert len(drawn) == 8
    assert all(0 <= seed < 2**64 for seed in drawn)


def test_defaults_are_those_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options.as_n_threads(None, 10**9) == backend.max_threads()
    monkeypatch.setattr(options, "default_max_memory", lambda: 77)
    options._default_workspace.cache_clear()
    assert options.workspace_bytes(None) == 77
    options._default_workspace.cache_clear()


def test_free_memory_is_not_looked_up_for_every_small_call(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(options, "default_max_memory", lambda: looks.append(1) or 77)
    options._default_workspace.cache_clear()
    now = [1000.0]
    monkeypatch.setattr(options.time, "monotonic", lambda: now[0])
    assert [options.workspace_bytes(None) for _ in range(50)] == [77] * 50
    assert len(looks) == 1
    now[0] += 0.6
    options.workspace_bytes(None)
    assert len(looks) == 2
    options._default_workspace.cache_clear()


def test_little_work_gets_one_thread_unless_more_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(options, "max_threads", lambda: 7)
    assert options.as_n_threads(None, options.WORK_FOR_A_TEAM) == 7
    assert options.as_n_threads(None, options.WORK_FOR_A_TEAM - 1) == 1
    assert options.as_n_threads(3, 1) == 3


@pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning")
@pytest.mark.parametrize(("rows", "n_threads"), [(624, 1), (626, 7)])
def test_work_is_counted_over_all_groups(
    rows: int, n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def record(name: str) -> Any:
        function = getattr(_core, name)

        def call(**arguments: Any) -> Any:
            asked.append(arguments["n_threads"])
            return function(**arguments)

        return call

    monkeypatch.setattr(options, "max_threads", lambda: 7)
    for name in ("fit", "seed", "assign"):
        monkeypatch.setattr(_core, name, record(name))
    x = np.random.default_rng(0).normal(size=(rows, 64))
    groups = np.arange(rows) // (rows // 2)
    k = [40, 60]  # 50 on average: 2 million products with 625 rows
    seeds = ddkern.seed_centroids(x, k, groups=groups, random_state=0)
    ddkern.quantize(x, k, groups=groups, init=seeds.centroids, max_iter=2)
    ddkern.assign(x, seeds.centroids, groups=groups, centroid_groups=seeds.groups)
    assert asked == [n_threads] * 3


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (partial(options.as_n_threads, multiply_adds=1), "n_threads"),
        (options.workspace_bytes, "max_memory"),
    ],
)
def test_resources_must_be_positive(check: Any, name: str) -> None:
    assert check(5) == 5
    with pytest.raises(ValueError, match=f"^{name}=0;"):
        check(0)
    with pytest.raises(TypeError, match=f"^{name}='2GiB' is a str;"):
        check("2GiB")
