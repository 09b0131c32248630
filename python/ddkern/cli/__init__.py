# SPDX-License-Identifier: Apache-2.0
"""The command ``ddkern``: distil, evaluate and look at sets.

It needs the packages of ``pip install 'ddkern[cli]'``, and each subcommand those of what it does.
Importing this package loads none of them.

Public names
------------
main
    What the command runs.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; leaves with its exit status.

    0: done. 1: an argument or a file breaks a rule, which one line on standard error names.
    2: the command line cannot be parsed. 130: interrupted.
    """
    from ddkern.errors import UnsupportedError
    from ddkern.optional import import_optional

    try:
        for package in ("typer", "rich"):
            import_optional(package, "the command ddkern", "cli")
    except UnsupportedError as error:
        sys.exit(f"error: {error}")
    from ddkern.cli.app import app

    app(prog_name="ddkern")
