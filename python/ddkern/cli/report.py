# SPDX-License-Identifier: Apache-2.0
"""``ddkern report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddkern.cli.arguments import Force, naming, refuse_existing

__all__ = ["report"]


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="What 'ddkern distill' wrote: a folder with set.safetensors."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The .html file to write; by default report.html in OUT.")
    ] = None,
    max_classes: Annotated[int, typer.Option(help="How many classes to show.")] = 20,
    force: Force = False,
) -> None:
    """Write one HTML page about a run, and print where it is."""
    from ddkern.checks import as_count
    from ddkern.optional import import_optional

    as_count("--max-classes", max_classes)
    page = folder / "report.html" if out is None else out
    if page.suffix != ".html":
        raise ValueError(f"--out={str(page)!r}; it must end in .html")
    refuse_existing([page], force)
    for package in ("PIL.Image", "jinja2"):
        import_optional(package, "the page of a run", "report")
    from ddkern.report import read_run, write_page

    with naming("OUT"):
        run = read_run(folder)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_page(run, page, max_classes=max_classes)
    typer.echo(page)
