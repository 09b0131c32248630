# SPDX-License-Identifier: Apache-2.0
"""Progress of a long call: a bar, lines of text, or the caller's own function."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

__all__ = ["Progress", "ProgressArgument", "RecordProgress", "report_progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a ``progress`` function receives.

    Attributes
    ----------
    done, total : int
        Pieces of work finished, and in all.
    unit : str
        What is counted, in the plural: "groups" (or items of a batch), "epochs", "classes".
    seconds_elapsed : float
        Since the call began.
    seconds_left : float or None
        Estimated from the pieces done so far; None before the first one is.
    note : str
        What else the call has to say, such as "network 2 of 5, loss 0.31"; empty if nothing.
    """

    done: int
    total: int
    unit: str
    seconds_elapsed: float
    seconds_left: float | None
    note: str = ""


class RecordProgress(Protocol):
    """What working code calls whenever a piece of work is finished."""

    def __call__(self, done: int, total: int, seconds: float, note: str = "") -> None:
        """Say that ``done`` of ``total`` pieces are finished, ``seconds`` after the beginning."""


ProgressArgument: TypeAlias = bool | Callable[[Progress], object] | None

# Lines of text are written no more often than this, and ever less often in a long call, so that an
# hour leaves a hundred lines and not thousands.
_SECONDS_BETWEEN_LINES = 0.5
_SHARE_BETWEEN_LINES = 0.05


@contextlib.contextmanager
def report_progress(
    progress: ProgressArgument, title: str, unit: str
) -> Iterator[RecordProgress | None]:
    """Turn the ``progress`` argument of a public function into what its working code calls.

    Parameters
    ----------
    progress : bool, callable or None
        None and False are silent. A callable receives a :class:`Progress`; an exception it raises
        ends the call. True draws a bar with rich where that is installed and standard error is a
        terminal, and writes lines of text to standard error otherwise.
    title : str
        What the display calls the work.
    unit : str
        What is counted, in the plural.

    Yields
    ------
    RecordProgress or None
        None where nothing is to be shown, so that working code need not prepare anything.
    """
    if progress is None or progress is False:
        yield None
    elif progress is True:
        rich_works = importlib.util.find_spec("rich") is not None and sys.stderr.isatty()
        with _rich_bar(title) if rich_works else _text_lines(title) as show:
            yield _recorder(show, unit)
    elif callable(progress):
        yield _recorder(progress, unit)
    else:
        raise TypeError(
            f"progress={progress!r} is a {type(progress).__name__}; "
            "it must be None, a bool or a callable"
        )


def _recorder(show: Callable[[Progress], object], unit: str) -> RecordProgress:
    def record(done: int, total: int, seconds: float, note: str = "") -> None:
        left = seconds / done * (total - done) if done else None
        show(Progress(done, total, unit, seconds, left, note))

    return record


@contextlib.contextmanager
def _text_lines(title: str) -> Iterator[Callable[[Progress], None]]:
    began_at = last_line_at = time.monotonic()
    finished = False

    def show(progress: Progress) -> None:
        nonlocal last_line_at, finished
        now = time.monotonic()
        if progress.done < progress.total:
            wait = max(_SECONDS_BETWEEN_LINES, _SHARE_BETWEEN_LINES * (now - began_at))
            if now - last_line_at < wait:
                return
        elif finished:
            return
        else:
            finished = True
        last_line_at = now
        parts = [f"{progress.done} of {progress.total} {progress.unit}"]
        if progress.note:
            parts.append(progress.note)
        parts.append(f"{_clock(progress.seconds_elapsed)} elapsed")
        if progress.seconds_left is not None:
            parts.append(f"{_clock(progress.seconds_left)} left")
        print(f"{title}: {', '.join(parts)}", file=sys.stderr, flush=True)

    yield show


@contextlib.contextmanager
def _rich_bar(title: str) -> Iterator[Callable[[Progress], None]]:
    import rich.console
    import rich.progress

    # auto_refresh would start a thread; the library starts none behind the caller's back. Without
    # markup, for what a note has in brackets is text.
    bar: Any = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[unit]}", markup=False),
        rich.progress.TextColumn("{task.fields[note]}", markup=False),
        rich.progress.TextColumn("{task.fields[left]}", markup=False),
        console=rich.console.Console(file=sys.stderr),
        auto_refresh=False,
    )
    with bar:
        task = bar.add_task(title, total=None, unit="", note="", left="")

        def show(progress: Progress) -> None:
            left = progress.seconds_left
            bar.update(
                task,
                completed=progress.done,
                total=progress.total,
                unit=progress.unit,
                note=progress.note,
                left="" if left is None else f"{_clock(left)} left",
            )
            bar.refresh()

        yield show


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
