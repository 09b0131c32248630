# SPDX-License-Identifier: Apache-2.0
"""The subcommands together, and what becomes of errors."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ddkern import __version__
from ddkern.cli.distill import distill
from ddkern.cli.evaluate import evaluate
from ddkern.cli.experts import experts
from ddkern.cli.inspect import inspect
from ddkern.cli.prior import prior
from ddkern.cli.protocols import protocols
from ddkern.cli.report import report
from ddkern.errors import UnsupportedError

__all__ = ["app"]

# What a wrong argument or file raises; anything else is a fault of ours and keeps its traceback.
_USER_ERRORS = (ValueError, TypeError, OSError, UnsupportedError)

_INTERRUPTED = 130


class _ReportingGroup(TyperGroup):
    """Subcommands whose errors are one line on standard error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            typer.echo(str(interrupt) or "interrupted", err=True)
            raise typer.Exit(_INTERRUPTED) from interrupt
        except BrokenPipeError:
            # The reader of the output has seen enough (``| head``); typer ends the program quietly.
            raise
        except _USER_ERRORS as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"error: {' '.join(str(error).splitlines())}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_ReportingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ddkern {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """Distil data sets, and evaluate what comes out."""
    # Both options act elsewhere: debug where errors are reported, version in its callback.


for _command in (distill, evaluate, protocols, inspect, report):
    app.command()(_command)
app.add_typer(experts, name="experts")
app.add_typer(prior, name="prior")
