# SPDX-License-Identifier: Apache-2.0
"""``ddkern prior fit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddkern.cli.arguments import AsJson, Channels, Dataset, Device, Quiet, Seed, Size
from ddkern.cli.output import format_percent, print_json, print_pairs

if TYPE_CHECKING:
    from ddkern.priors import FittedPrior, PriorRecipe

__all__ = ["make_recipe", "prior"]

prior = typer.Typer(help="Diffusion priors of one's own.", no_args_is_help=True)


@prior.callback()
def _group() -> None:
    """Diffusion priors of one's own, where no pretrained ones exist."""


@prior.command()
def fit(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="A folder, new or of the same command before.")],
    size: Size = None,
    channels: Channels = None,
    effort: Annotated[
        float, typer.Option(help="Share of the steps of the recipe, above 0 and at most 1.")
    ] = 1.0,
    seed: Seed = 0,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    device: Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be fitted, and end.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit an autoencoder and a diffusion model. Repeat an interrupted command to go on."""
    from ddkern.checks import as_seed
    from ddkern.cli.sets import DataOptions
    from ddkern.optional import import_optional

    as_seed("--seed", seed)
    import_optional("diffusers", "fitting a prior", "diffusion")
    data = DataOptions(dataset, size, channels)
    train = data.training()
    recipe = make_recipe(train.image_shape, effort)
    if dry_run:
        _print_plan(recipe, repr(train), out, as_json)
        return
    from ddkern.priors import fit_prior

    fitted = fit_prior(
        train,
        out,
        recipe,
        test=data.test(),
        random_state=seed,
        precision=precision,
        device=device,
        progress=not quiet,
    )
    described = describe_prior(fitted)
    if as_json:
        print_json(described)
        return
    print_pairs(described)


def make_recipe(image_shape: tuple[int, int, int], effort: float) -> PriorRecipe:
    """The recipe for images of this shape with a share of its steps.

    Raises
    ------
    ValueError
        If ``effort`` is out of range, or there is no recipe for the images.
    """
    from ddkern.cli.arguments import naming
    from ddkern.priors import PriorRecipe

    recipe = PriorRecipe.for_images(image_shape)
    recipe.check_images(image_shape)
    with naming("--effort"):
        return recipe.shortened(effort)


def describe_prior(fitted: FittedPrior) -> dict[str, Any]:
    """What was found about a prior, by name."""
    figures = fitted.figures
    return {
        "prior": str(fitted.folder),
        "reconstruction error": f"{figures['reconstruction_rmse']:.4f} (pixels in [0, 1], RMS)",
        "classifier on real images": f"{format_percent(figures['real_accuracy'])} %",
        "classifier on samples": f"{format_percent(figures['sample_accuracy'])} %",
        "seconds": f"{sum(fitted.seconds.values()):.1f}",
    }


def _print_plan(recipe: PriorRecipe, dataset: str, out: Path, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json({"dataset": dataset, "out": str(out), "recipe": asdict(recipe)})
        return
    print_pairs(
        {
            "dataset": dataset,
            "autoencoder": _line(asdict(recipe.autoencoder)),
            "diffusion model": _line(asdict(recipe.diffusion)),
            "writes": str(out),
        }
    )


def _line(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
