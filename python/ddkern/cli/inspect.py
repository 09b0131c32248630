# SPDX-License-Identifier: Apache-2.0
"""``ddkern inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddkern.cli.arguments import AsJson, Force, refuse_existing
from ddkern.cli.output import format_bytes, print_json, print_pairs

if TYPE_CHECKING:
    from ddkern.data import DistilledSet

__all__ = ["inspect"]


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="SET", help="A .safetensors file, or a folder of .pt files.")
    ],
    sheet: Annotated[Path | None, typer.Option(help="Draw all images into this .png file.")] = None,
    normalization: Annotated[
        str | None,
        typer.Option(
            help="What images in .pt files were normalised with: identity, cifar10, mnist, "
            "fashion_mnist, svhn or imagenet. Drawing them needs it."
        ),
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Show what a set is and where it comes from."""
    from ddkern.cli.sets import describe_set, is_native, print_classes

    if sheet is not None:
        if sheet.suffix != ".png":
            raise ValueError(f"--sheet={str(sheet)!r}; it must end in .png")
        refuse_existing([sheet], force)
    told = normalization is not None or (path.exists() and is_native(path))
    if sheet is not None and path.exists() and not told:
        raise ValueError(
            f"--sheet={str(sheet)!r} needs --normalization: .pt files do not say what the images "
            "were normalised with"
        )
    distilled = _load(path, normalization)
    described = describe_set(distilled, path)
    if not told:
        described["normalization"] = None
    if sheet is not None:
        _draw(distilled, sheet)
    if as_json:
        print_json(described)
        return
    _print_facts(described)
    typer.echo()
    print_classes(described["classes"])


def _load(path: Path, normalization: str | None) -> DistilledSet:
    from ddkern.cli.sets import choose_normalization, is_native, load_set

    if not path.exists() or is_native(path):
        chosen = None if normalization is None else choose_normalization(normalization, None, 1)
        return load_set(path, chosen)
    if normalization not in (None, "identity"):
        return load_set(path, choose_normalization(str(normalization), None, 1))
    # How many channels there are is not known before the files are read.
    from ddkern.data import Normalization

    try:
        return load_set(path, Normalization.identity(3))
    except ValueError as colour:
        try:
            return load_set(path, Normalization.identity(1))
        except ValueError:
            raise colour from None


def _draw(distilled: DistilledSet, sheet: Path) -> None:
    from ddkern.files import replaced_when_complete
    from ddkern.optional import import_optional

    import_optional("PIL.Image", "--sheet", "data")
    from ddkern.report import draw_distilled_set

    sheet.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(sheet) as file:
        draw_distilled_set(distilled).save(file, "PNG")


def _print_facts(described: dict[str, Any]) -> None:
    from ddkern.cli.distill import format_options

    made, norm, soft = (described[k] for k in ("provenance", "normalization", "soft_labels"))
    source = made["source"] or "unknown"
    if made["source_split"]:
        source += f", split {made['source_split']}"
    if norm is None:
        normalization = "not told by .pt files"
    elif norm["zca"]:
        normalization = "ZCA whitening"
    else:
        normalization = " ".join(
            f"{name} {', '.join(f'{value:.4g}' for value in norm[name])}"
            for name in ("mean", "std")
        )
    shape = " x ".join(map(str, described["image_shape"]))
    print_pairs(
        {
            "set": f"{described['set']}, {format_bytes(described['bytes'])}",
            "images": f"{described['images']} of {shape}, stored as {described['stored_as']}",
            "method": made["method"] or "unknown",
            "options": format_options(made["options"]) or "unknown",
            "seed": "unknown" if made["random_state"] is None else made["random_state"],
            "source": source,
            "source hash": made["source_hash"] or "unknown",
            "normalization": normalization,
            "protocol": made["protocol"] or "none",
            "soft labels": "none" if soft is None else f"{soft['kind']}, {soft['dtype']}",
            "student lr": "none"
            if described["student_lr"] is None
            else f"{described['student_lr']:.6g}",
            "versions": ", ".join(f"{k} {v}" for k, v in made["versions"].items()) or "unknown",
            "commit": made["commit"] or "unknown",
        }
    )
