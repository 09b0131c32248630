# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern import _core, backend
from ddkern.kmeans import options


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
