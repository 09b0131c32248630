# SPDX-License-Identifier: Apache-2.0
"""``ddkern inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddkern.cli.arguments import (
    AsJson,
    Channels,
    Force,
    Quiet,
    SetPath,
    Size,
    naming,
    refuse_existing,
)
from ddkern.cli.output import format_bytes, print_json, print_pairs

if TYPE_CHECKING:
    from ddkern.data import DistilledSet, ImageDataset
    from ddkern.distill import FeatureSpace
    from ddkern.evaluate import QuantizationMeasures

__all__ = ["inspect"]


def inspect(
    path: SetPath,
    sheet: Annotated[Path | None, typer.Option(help="Draw all images into this .png file.")] = None,
    normalization: Annotated[
        str | None,
        typer.Option(
            help="What images in .pt files were normalised with: identity, cifar10, mnist, "
            "fashion_mnist, svhn or imagenet. Drawing them needs it."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Measure how well the images stand for the training images of this data set, "
            "which 'ddkern distill --dataset' would take."
        ),
    ] = None,
    size: Size = None,
    channels: Channels = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="For --dataset: what images are compared by, pixels (the default) or pca."
        ),
    ] = None,
    pca_components: Annotated[int | None, typer.Option(help="For --features pca.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Show what a set is, where it comes from, and how well it stands for what it was made from.

    How well, say a measures.json beside set.safetensors, and --dataset: distortion (mean squared
    distance to the nearest image), W2 (Wasserstein distance, with the weights of the set and with
    uniform ones), gain (what the weights take off it), residual (how far images are from the means
    of their cells, 0 to 1), least and largest cell, and how many equal cells they are worth.
    """
    from ddkern.cli.sets import describe_set, is_native, print_classes

    _check_sheet(sheet, force)
    told = normalization is not None or (path.exists() and is_native(path))
    if not told and path.exists():
        _refuse_without_normalization({"--sheet": sheet, "--dataset": dataset})
    real = _RealImages.chosen(dataset, size, channels, features, pca_components)
    distilled = _load(path, normalization, None if real is None else real.train)
    of_run = _measures_of_run(path, distilled)
    of_images = None if real is None else real.measure(distilled, progress=not quiet)
    described = describe_set(distilled, path)
    if not told:
        described["normalization"] = None
    if sheet is not None:
        _draw(distilled, sheet)
    if as_json:
        measured = {
            "measures": None if of_run is None else of_run.as_dict(),
            "measures_of_images": None
            if real is None or of_images is None
            else {**real.describe(), **of_images.as_dict()},
        }
        print_json({**described, **measured})
        return
    _print_facts(described)
    typer.echo()
    print_classes(described["classes"])
    _print_measures("measures of the run, in the space that it quantized", of_run, distilled)
    _print_measures(f"measures of the images, against {real}", of_images, distilled)


@dataclass(frozen=True, slots=True)
class _RealImages:
    """Training images to compare with, and what by."""

    train: ImageDataset
    space: FeatureSpace

    @classmethod
    def chosen(
        cls,
        dataset: str | None,
        size: int | None,
        channels: int | None,
        features: str | None,
        pca_components: int | None,
    ) -> _RealImages | None:
        """From the options; None without --dataset."""
        from ddkern.checks import as_count, check_choice
        from ddkern.cli.sets import DataOptions
        from ddkern.distill import PcaFeatures, PixelFeatures

        if features is not None:
            check_choice("--features", features, ("pixels", "pca"))
        for name, value in {"features": features, "size": size, "channels": channels}.items():
            if value is not None and dataset is None:
                raise ValueError(f"--{name}={value!r} needs --dataset, images to compare with")
        if (features == "pca") != (pca_components is not None):
            given = "is missing" if pca_components is None else f"is {pca_components}"
            raise ValueError(
                f"--pca-components {given}; it goes with --features pca, which needs it"
            )
        if dataset is None:
            return None
        space: FeatureSpace = PixelFeatures()
        if pca_components is not None:
            space = PcaFeatures(n_components=as_count("--pca-components", pca_components))
        return cls(DataOptions(dataset, size, channels).training(), space)

    def __str__(self) -> str:
        split = "" if self.train.split is None else f"{self.train.split}, "
        options = ", ".join(f"{name}={value}" for name, value in self.space.options().items())
        space = self.space.name + (f" ({options})" if options else "")
        return f"{self.train.name!r} ({split}{len(self.train)} images), by {space}"

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "dataset": self.train.name,
            "split": self.train.split,
            "features": {"name": self.space.name, **self.space.options()},
        }

    def measure(self, distilled: DistilledSet, *, progress: bool) -> QuantizationMeasures:
        from ddkern.cli.measures import measure_images
        from ddkern.evaluate.task import check_same_task

        with naming("SET"):
            check_same_task(distilled, self.train, "--dataset")
        return measure_images(distilled, self.train, self.space, progress=progress)


def _check_sheet(sheet: Path | None, force: bool) -> None:
    if sheet is not None:
        if sheet.suffix != ".png":
            raise ValueError(f"--sheet={str(sheet)!r}; it must end in .png")
        refuse_existing([sheet], force)


def _refuse_without_normalization(options: dict[str, Path | str | None]) -> None:
    for option, value in options.items():
        if value is not None:
            raise ValueError(
                f"{option}={str(value)!r} needs --normalization: .pt files do not say what the "
                "images were normalised with"
            )


def _measures_of_run(path: Path, distilled: DistilledSet) -> QuantizationMeasures | None:
    """What a run left behind beside its set, which has this name in the folder of a run."""
    from ddkern.cli.measures import read_measures

    measures = path.with_name("measures.json")
    if path.name != "set.safetensors" or not measures.is_file():
        return None
    return read_measures(measures, distilled)


def _print_measures(
    title: str, measures: QuantizationMeasures | None, distilled: DistilledSet
) -> None:
    from ddkern.cli.measures import print_measures

    if measures is not None:
        typer.echo()
        print_measures(title, measures, distilled.class_names)


def _load(path: Path, normalization: str | None, train: ImageDataset | None) -> DistilledSet:
    from ddkern.cli.sets import choose_normalization, is_native, load_set

    if not path.exists() or is_native(path):
        chosen = None if normalization is None else choose_normalization(normalization, train, 1)
        return load_set(path, chosen)
    if normalization not in (None, "identity"):
        return load_set(path, choose_normalization(str(normalization), train, 1))
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
