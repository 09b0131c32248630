# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from pathlib import Path

import pytest

from ddkern.distill.stages import StageLog, digest_of


def test_stages_stand_in_the_order_of_their_beginning(tmp_path: Path) -> None:
    log = StageLog(tmp_path)
    for name in ("zebra", "ant", "zebra"):
        with log.stage(name) as detail:
            detail["images"] = len(name)
    found = StageLog(tmp_path).read()
    assert [entry["name"] for entry in found] == ["zebra", "ant"]
    assert [entry["detail"] for entry in found] == [{"images": 5}, {"images": 3}]


def test_seconds_of_all_calls_add_up_and_failed_ones_count(tmp_path: Path) -> None:
    log = StageLog(tmp_path)

    def work() -> None:
        with log.stage("a"):
            time.sleep(0.02)
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            work()
    with log.stage("a") as detail:
        assert detail == {}
    (found,) = log.read()
    assert 0.04 <= found["seconds"] < 5


def test_no_stages(tmp_path: Path) -> None:
    assert StageLog(tmp_path / "nothing").read() == []


def test_digests_tell_conditions_apart() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    assert len(digest_of({})) == 8
