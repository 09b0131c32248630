# SPDX-License-Identifier: Apache-2.0
"""What goes to standard output: tables, pairs of name and value, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

__all__ = ["format_bytes", "format_percent", "print_json", "print_pairs", "print_table"]

# Of tables that no terminal reads, so that a file has the same text whatever window wrote it.
_FILE_WIDTH = 100


def print_json(content: Any) -> None:
    """One JSON document."""
    typer.echo(json.dumps(content, indent=1))


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """A line for each name and its value, values below each other; nothing is cut or wrapped."""
    width = max(map(len, pairs))
    for name, value in pairs.items():
        typer.echo(f"{name:<{width}}  {value}".rstrip())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """A table whose first ``left`` columns are text and whose others are numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    for row in rows:
        # As Text: what a name has in brackets is no markup.
        table.add_row(*map(Text, row))
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False)
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def format_percent(mean: float, std: float | None = None) -> str:
    """A share as per cent, with its deviation."""
    return f"{100 * mean:.2f}" + ("" if std is None else f" +- {100 * std:.2f}")


def format_bytes(count: int) -> str:
    """A size for people."""
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
