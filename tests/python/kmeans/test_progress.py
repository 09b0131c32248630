# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import io
import re
import sys
import threading
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern.kmeans import progress as module
from ddkern.kmeans.progress import Progress, report_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("silent", [None, False])
def test_silence(silent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with report_progress(silent, "work") as record:
        assert record is None
    assert capsys.readouterr() == ("", "")


def test_callable_receives_the_numbers() -> None:
    seen: list[Progress] = []
    with report_progress(seen.append, "work") as record:
        assert record is not None
        record(0, 4, 1.0)
        record(1, 4, 2.0)
        record(4, 4, 8.0)
    assert seen == [Progress(0, 4, 1.0, None), Progress(1, 4, 2.0, 6.0), Progress(4, 4, 8.0, 0.0)]


@pytest.mark.parametrize("wrong", [1, "yes", []])
def test_wrong_type(wrong: Any) -> None:
    with pytest.raises(TypeError, match="^progress=.* is a"), report_progress(wrong, "work"):
        pass


def test_text_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the clock says when the call begins, and at each report.
    clock = iter((100.0, 100.4, 100.6, 101.0, 101.2, 101.3, 102.5))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with report_progress(True, "work") as record:
        assert record is not None
        for done in (0, 1, 2, 3, 4, 4):
            record(done, 4, 60.0 * done)
    out, err = capsys.readouterr()
    assert out == ""
    # Neither too soon after the start, nor after another line, nor twice at the end.
    assert err == (
        "work: 1 of 4 groups, 1:00 elapsed, 3:00 left\n"
        "work: 3 of 4 groups, 3:00 elapsed, 1:00 left\n"
        "work: 4 of 4 groups, 4:00 elapsed, 0:00 left\n"
    )


def test_text_on_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with report_progress(True, "work") as record:
        assert record is not None
        record(1, 1, 2.0)
    assert sys.stderr.getvalue() == "work: 1 of 1 groups, 0:02 elapsed, 0:00 left\n"


def test_bar_on_a_terminal_with_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    threads_before = threading.active_count()
    with report_progress(True, "work") as record:
        assert record is not None
        record(1, 4, 2.0)
        assert threading.active_count() == threads_before
        record(4, 4, 8.0)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "work" in shown
    assert "1/4" in shown
    assert "0:06 left" in shown
    assert "4/4" in shown


@pytest.mark.parametrize("function", [ddkern.quantize, ddkern.seed_centroids])
@pytest.mark.sanitize
def test_calls_report_every_group(function: Any) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    seen: list[Progress] = []
    function(x, 2, groups=np.arange(40) % 5, random_state=0, progress=seen.append)
    done = [report.groups_done for report in seen]
    assert done == sorted(done)
    assert seen[-1].groups_done == 5
    assert {report.groups_total for report in seen} == {5}
    assert all(report.seconds_elapsed >= 0 for report in seen)


def test_true_writes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    ddkern.quantize(np.arange(6.0), 2, random_state=0, progress=True)
    assert "quantize: 1 of 1 groups" in capsys.readouterr().err


def test_an_exception_ends_the_call() -> None:
    class EnoughError(Exception):
        pass

    def stop(_: Progress) -> None:
        raise EnoughError

    x = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(EnoughError):
        ddkern.quantize(x, 2, groups=np.arange(40) % 5, random_state=0, progress=stop)


def test_clock() -> None:
    assert [module._clock(s) for s in (0.4, 59.6, 3599, 3600)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
    ]
