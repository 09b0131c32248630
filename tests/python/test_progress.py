# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import io
import re
import sys
import threading
from typing import Any

import pytest

from ddkern import progress as module
from ddkern.progress import Progress, report_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("silent", [None, False])
def test_silence(silent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with report_progress(silent, "work", "groups") as record:
        assert record is None
    assert capsys.readouterr() == ("", "")


def test_callable_receives_the_numbers() -> None:
    seen: list[Progress] = []
    with report_progress(seen.append, "work", "epochs") as record:
        assert record is not None
        record(0, 4, 1.0)
        record(1, 4, 2.0, "loss 0.31")
        record(4, 4, 8.0, note="loss 0.02")
    assert seen == [
        Progress(0, 4, "epochs", 1.0, None, ""),
        Progress(1, 4, "epochs", 2.0, 6.0, "loss 0.31"),
        Progress(4, 4, "epochs", 8.0, 0.0, "loss 0.02"),
    ]


@pytest.mark.parametrize("wrong", [1, "yes", []])
def test_wrong_type(wrong: Any) -> None:
    refused = pytest.raises(TypeError, match="^progress=.* is a")
    with refused, report_progress(wrong, "work", "groups"):
        pass


def test_text_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the clock says when the call begins, and at each report.
    clock = iter((100.0, 100.4, 100.6, 101.0, 101.2, 101.3, 102.5))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with report_progress(True, "work", "groups") as record:
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


def test_text_comes_less_often_in_a_long_call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 100.0, 104.0, 106.0, 110.0, 112.0))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with report_progress(True, "work", "groups") as record:
        assert record is not None
        for done in (1, 2, 3, 4, 5):
            record(done, 9, float(done))
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["1", "3", "5"]


def test_text_shows_unit_and_note(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((100.0, 101.0, 102.0))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with report_progress(True, "train", "epochs") as record:
        assert record is not None
        record(0, 2, 1.0, "network 2 of 5")
        record(2, 2, 2.0, "loss [0.31]")
    assert capsys.readouterr().err == (
        "train: 0 of 2 epochs, network 2 of 5, 0:01 elapsed\n"
        "train: 2 of 2 epochs, loss [0.31], 0:02 elapsed, 0:00 left\n"
    )


def test_text_on_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with report_progress(True, "work", "groups") as record:
        assert record is not None
        record(1, 1, 2.0)
    assert sys.stderr.getvalue() == "work: 1 of 1 groups, 0:02 elapsed, 0:00 left\n"


def test_bar_on_a_terminal_with_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    threads_before = threading.active_count()
    with report_progress(True, "work", "groups") as record:
        assert record is not None
        record(1, 4, 2.0, "loss [bold]")
        assert threading.active_count() == threads_before
        record(4, 4, 8.0)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "work" in shown
    assert "1/4 groups loss [bold]" in shown
    assert "0:06 left" in shown
    assert "4/4" in shown


def test_clock() -> None:
    assert [module._clock(s) for s in (0.4, 59.6, 3599, 3600)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
    ]
