# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ddkern.distill.workers import Workers


def test_alone_where_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    workers = Workers.of_environment()
    assert workers == Workers(0, 1)
    assert list(workers.share(iter(range(4)))) == [0, 1, 2, 3]
    assert workers.first(lambda: 7) == 7
    assert workers.same(lambda: 8) == 8
    with pytest.raises(ZeroDivisionError):
        workers.first(lambda: 1 // 0)
    workers.wait()


def test_one_process_of_torchrun_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Workers.of_environment() == Workers(0, 1)


@pytest.mark.parametrize(
    ("rank", "count"), [("2", "2"), ("-1", "2"), ("a", "2"), ("0", None), (None, "2"), ("0", "0")]
)
def test_wrong_numbers(
    rank: str | None, count: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", count)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"RANK=.* WORLD_SIZE=.*0 <= RANK < WORLD_SIZE"):
        Workers.of_environment()


def test_every_part_has_one_worker() -> None:
    shares = [list(Workers(rank, 3).share(iter(range(10)))) for rank in range(3)]
    assert sorted(part for share in shares for part in share) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
