# SPDX-License-Identifier: Apache-2.0
"""Progress of a long call: a bar, lines of text, or the caller's own function."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["CoreProgress", "Progress", "ProgressArgument", "report_progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a ``progress`` function receives.

    Attributes
    ----------
    groups_done, groups_total : int
        Groups (or items of a batch) finished, and in all.
    seconds_elapsed : float
        Since the call began.
    seconds_left : float or None
        Estimated from the groups done so far; None before the first one is.
    """

    groups_done: int
    groups_total: int
    seconds_elapsed: float
    seconds_left: float | None


CoreProgress: TypeAlias = Callable[[int, int, float], None]
ProgressArgument: TypeAlias = bool | Callable[[Progress], object] | None

# Lines of text are written no more often than this.
_SECONDS_BETWEEN_LINES = 0.5


@contextlib.contextmanager
def report_progress(progress: ProgressArgument, title: str) -> Iterator[CoreProgress | None]:
    """Turn the ``progress`` argument into the function that the extension module calls.

    Parameters
    ----------
    progress : bool, callable or None
        None and False are silent. A callable receives a :class:`Progress`; an exception it raises
        ends the call. True draws a bar with rich where that is installed and standard error is a
        terminal, and writes lines of text to standard error otherwise.
    title : str
        What the display calls the work.
    """
    if progress is None or progress is False:
        yield None
    elif progress is True:
        rich_works = importlib.util.find_spec("rich") is not None and sys.stderr.isatty()
        with _rich_bar(title) if rich_works else _text_lines(title) as show:
            yield _recorder(show)
    elif callable(progress):
        yield _recorder(progress)
    else:
        raise TypeError(
            f"progress={progress!r} is a {type(progress).__name__}; "
            "it must be None, a bool or a callable"
        )


def _recorder(show: Callable[[Progress], object]) -> CoreProgress:
    def record(done: int, total: int, seconds: float) -> None:
        left = seconds / done * (total - done) if done else None
        show(Progress(done, total, seconds, left))

    return record


@contextlib.contextmanager
def _text_lines(title: str) -> Iterator[Callable[[Progress], None]]:
    last_line_at = time.monotonic()
    finished = False

    def show(progress: Progress) -> None:
        nonlocal last_line_at, finished
        now = time.monotonic()
        if progress.groups_done < progress.groups_total:
            if now - last_line_at < _SECONDS_BETWEEN_LINES:
                return
        elif finished:
            return
        else:
            finished = True
        last_line_at = now
        left = "" if progress.seconds_left is None else f", {_clock(progress.seconds_left)} left"
        print(
            f"{title}: {progress.groups_done} of {progress.groups_total} groups, "
            f"{_clock(progress.seconds_elapsed)} elapsed{left}",
            file=sys.stderr,
            flush=True,
        )

    yield show


@contextlib.contextmanager
def _rich_bar(title: str) -> Iterator[Callable[[Progress], None]]:
    import rich.console
    import rich.progress

    # auto_refresh would start a thread; the library starts none behind the caller's back.
    bar: Any = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[left]}"),
        console=rich.console.Console(file=sys.stderr),
        auto_refresh=False,
    )
    with bar:
        task = bar.add_task(title, total=None, left="")

        def show(progress: Progress) -> None:
            left = progress.seconds_left
            bar.update(
                task,
                completed=progress.groups_done,
                total=progress.groups_total,
                left="" if left is None else f"{_clock(left)} left",
            )
            bar.refresh()

        yield show


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
