# SPDX-License-Identifier: Apache-2.0
"""Pages of docs/ that are made from results: tables, and writing or comparing a page."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from bench import record

__all__ = ["table", "write_or_check"]


def table(head: list[str], rows: list[list[str]], numbers_from: int = 1) -> str:
    """Return a table in Markdown; columns from ``numbers_from`` on are set to the right."""
    rule = ["---" if i < numbers_from else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def write_or_check(
    program: str, page: Path, render: Callable[[], str], arguments: list[str] | None
) -> int:
    """Write a page, or with ``--check`` say whether it is up to date; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(arguments)
    text, path = render(), record.ROOT / page
    if options.check:
        current = path.exists() and path.read_text() == text
        print(f"{page} is {'up to date' if current else 'out of date'}")
        return 0 if current else 1
    path.write_text(text)
    return 0
