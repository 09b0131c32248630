# SPDX-License-Identifier: Apache-2.0
"""``ddkern distill``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddkern.cli.arguments import (
    AsJson,
    Channels,
    Config,
    Dataset,
    Device,
    Force,
    Normalizing,
    Quiet,
    Seed,
    Size,
    command_of,
)
from ddkern.cli.output import print_json, print_pairs
from ddkern.cli.set_files import SetFiles, forget_run, write_run

if TYPE_CHECKING:
    from ddkern.cli.latents import LatentOptions
    from ddkern.cli.learned import LearnedOptions
    from ddkern.cli.sets import DataOptions
    from ddkern.data import DistilledSet, ImageDataset, Normalization
    from ddkern.distill import Method

__all__ = ["distill", "format_options"]


# Options that leave the set as it is.
_OF_NO_EFFECT = ("config", "dry_run", "as_json", "quiet", "force")


def distill(
    context: typer.Context,
    method: Annotated[
        str,
        typer.Option(
            help="ddoq or d4m (latents); mtt, dm or dc (learned images); random, herding, "
            "k-center, k-means or forgetting (chosen images); whole."
        ),
    ],
    dataset: Dataset,
    out: Annotated[
        Path,
        typer.Option(
            help="A folder for set.safetensors and contact_sheet.png, or a .safetensors file for "
            "the set alone."
        ),
    ],
    size: Size = None,
    channels: Channels = None,
    ipc: Annotated[
        int | None, typer.Option(help="Images per class, 10 by default; all with --method whole.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="What images are compared by: pixels (the default), pca or network."),
    ] = None,
    pca_components: Annotated[int | None, typer.Option(help="For --features pca.")] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="For --features network, dc and dm: a name, such as convnet-d3 (the default), and "
            "options after a colon (convnet-d3:width=64). Untrained, its weights drawn from "
            "--seed."
        ),
    ] = None,
    network_weights: Annotated[
        Path | None, typer.Option(help="Trained weights of --network, a .safetensors file.")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="For --method forgetting: one number a training image, a .npy file."),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="For ddoq and d4m: 'fit' (the default) fits one to the data set, in OUT/prior; a "
            "folder or hub id of a diffusers pipeline or autoencoder; 'none' quantizes pixels."
        ),
    ] = None,
    prior_classes: Annotated[
        str | None,
        typer.Option(
            help="For a DiT of other classes: the row of its label table for each class of the "
            "data set, such as 0,217,482."
        ),
    ] = None,
    effort: Annotated[
        float | None,
        typer.Option(help="For --prior fit: share of the steps of its recipe, at most 1."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="For ddoq and d4m: how far latents are diffused, 0 to 1."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="For ddoq and d4m: steps of the sampler.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="For ddoq and d4m: weight of classifier-free guidance, at least 1."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="For ddoq and d4m: a network that is trained on the data set and gives soft "
            "labels, such as convnet-d3; 'none' (the default) leaves hard labels."
        ),
    ] = None,
    clustering: Annotated[
        str | None,
        typer.Option(help="For d4m: minibatch (the default) or lloyd."),
    ] = None,
    sample: Annotated[
        bool | None,
        typer.Option(
            "--sample",
            help="For ddoq and d4m: encode to samples, as D4M's code does, not to means.",
        ),
    ] = None,
    experts: Annotated[
        Path | None,
        typer.Option(help="For --method mtt: a folder that 'ddkern experts train' made."),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            help="For --method mtt: take the settings of the paper's code for cifar10, cifar100, "
            "tiny-imagenet or imagenet-subset."
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(help="For dc, dm and mtt: updates of the images, those of before included."),
    ] = None,
    look_every: Annotated[
        int | None,
        typer.Option(help="For dc, dm and mtt: test the set whenever so many updates are done."),
    ] = None,
    look_protocol: Annotated[
        str | None, typer.Option(help="For --look-every: how it is tested (E1-dsa).")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="For dc, dm and mtt: another field of the method, such as lr_images=10; "
            "repeatable.",
        ),
    ] = None,
    normalization: Normalizing = "fit",
    seed: Seed = 0,
    export: Annotated[
        list[str] | None,
        typer.Option(help="Also write folder, parquet or pt files beside the set; repeatable."),
    ] = None,
    drop_weights: Annotated[
        bool, typer.Option("--drop-weights", help="Let --export pt leave out unequal weights.")
    ] = False,
    device: Device = "auto",
    config: Config = None,  # noqa: ARG001  # its callback has read it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would be done, and end.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Make a small set that stands for a large one. Repeat an interrupted command to go on."""
    from ddkern.checks import as_count, as_seed, check_choice
    from ddkern.cli.coresets import FeatureOptions, choose_coreset
    from ddkern.cli.latents import LATENT_METHODS, LatentOptions
    from ddkern.cli.learned import LEARNED_METHODS, LearnedOptions
    from ddkern.cli.sets import DataOptions, check_normalization
    from ddkern.distill import method_names
    from ddkern.distill.workers import Workers

    is_first = Workers.of_environment().rank == 0
    check_choice("--method", method, method_names())
    as_seed("--seed", seed)
    if ipc is not None and method == "whole":
        raise ValueError(f"--ipc={ipc}, but --method whole takes all images")
    count = as_count("--ipc", 10 if ipc is None else ipc)
    files = SetFiles.beside(out, export or [])
    if is_first:
        files.refuse_existing(out, force)
    files.check_packages()
    data = DataOptions(dataset, size, channels)
    train = data.training()
    check_normalization(normalization, train)
    command = command_of(context, _OF_NO_EFFECT)
    job = _Job(command, train, normalization, seed, files, drop_weights, as_json, quiet)
    from_features = FeatureOptions(features, pca_components, network, network_weights, device)
    from_latents = LatentOptions(
        prior, prior_classes, effort, strength, steps, guidance, teacher, clustering, sample
    )
    from_learning = LearnedOptions(
        experts, published, iterations, look_every, look_protocol, settings
    )
    if method in LEARNED_METHODS:
        from_latents.refuse(method)
        if scores is not None:
            raise ValueError(f"--scores={str(scores)!r} is for --method forgetting")
        replace(from_features, network=None).refuse(method)
        if is_first:
            _distill_learned(job, method, count, data, out, from_learning, network, device, dry_run)
        return
    from_learning.refuse(method)
    if method not in LATENT_METHODS:
        from_latents.refuse(method)
        chosen = choose_coreset(method, count, scores, from_features, train, seed)
        chosen.check(train)
        if not is_first:
            return  # one process is enough
        if dry_run:
            job.print_plan({"method": method, "options": chosen.options()})
        else:
            job.run(lambda _: chosen, out)
        return
    if scores is not None:
        raise ValueError(f"--scores={str(scores)!r} is for --method forgetting")
    from_features.refuse(method)
    from_latents.check(method, train)
    _distill_latents(job, method, count, data, out, from_latents, device, dry_run, is_first)


def _distill_learned(
    job: _Job,
    method: str,
    ipc: int,
    data: DataOptions,
    out: Path,
    options: LearnedOptions,
    network: str | None,
    device: str,
    dry_run: bool,
) -> None:
    from ddkern.cli.cost import print_estimate
    from ddkern.cli.learned import rehearse
    from ddkern.optional import import_optional

    if job.files.contact_sheet is None:
        raise ValueError(f"--out={str(out)!r}; with --method {method} it must be a folder")
    import_optional("torch", f"--method={method}", "torch")
    chosen = options.build(method, ipc, network, data.test(), device, out)
    chosen.check(job.train)
    if not dry_run:
        job.run(lambda _: chosen, out, has_stages=True)
        return
    found = rehearse(chosen, job.train, job.normalization, job.seed)
    job.print_plan({"method": method, "options": chosen.options(), "estimate": found})
    if not job.as_json:
        typer.echo()
        print_estimate(found)


def _distill_latents(
    job: _Job,
    method: str,
    ipc: int,
    data: DataOptions,
    out: Path,
    options: LatentOptions,
    device: str,
    dry_run: bool,
    is_first: bool,
) -> None:
    from ddkern.cli.cost import estimate, print_estimate
    from ddkern.cli.latents import Place
    from ddkern.distill.selection import check_class_counts

    if job.files.contact_sheet is None:
        raise ValueError(f"--out={str(out)!r}; with --method {method} it must be a folder")
    check_class_counts(job.train, ipc)
    settings = {"method": method, "options": {"ipc": ipc, **options.given()}}
    if dry_run and not is_first:
        return
    if dry_run or (is_first and not job.quiet and not job.as_json):
        found = estimate(job.train, ipc, options, device)
        if dry_run:
            job.print_plan({**settings, "estimate": found})
            if not job.as_json:
                typer.echo()
                print_estimate(found)
            return
        print_estimate(found)
        typer.echo()
    if options.trains():
        # Decoded once: a prior, a teacher and the encoder all look at every image.
        job = replace(job, train=job.train.load())
    test = data.test()

    def make(normalization: Normalization) -> Method:
        out.mkdir(parents=True, exist_ok=True)
        place = Place(job.train, test, normalization, out, job.seed, device, not job.quiet)
        return options.build(method, ipc, place)

    job.run(make, out, write=is_first, has_stages=True)


@dataclass(frozen=True, slots=True)
class _Job:
    """What all methods have in common on the command line."""

    command: str
    train: ImageDataset
    normalization: str
    seed: int
    files: SetFiles
    drop_weights: bool
    as_json: bool
    quiet: bool

    def print_plan(self, plan: dict[str, Any]) -> None:
        """What would be done."""
        if self.as_json:
            described = {"dataset": repr(self.train), "normalization": self.normalization}
            print_json({**plan, **described, "seed": self.seed, **self.files.describe()})
            return
        print_pairs(
            {
                "method": plan["method"],
                "options": format_options(plan["options"]),
                "dataset": repr(self.train),
                "normalization": self.normalization,
                "seed": self.seed,
                "writes": ", ".join(map(str, self.files.all())),
            }
        )

    def run(
        self,
        make: Callable[[Normalization], Method],
        out: Path,
        *,
        write: bool = True,
        has_stages: bool = False,
    ) -> None:
        """Make the method and the set, write it and the record of the run, and say so.

        Without ``write`` another process does that. ``has_stages``: whether the method logs some.
        """
        from ddkern.cli.sets import choose_normalization
        from ddkern.distill import distill as run_method

        start = time.perf_counter()
        if write and self.files.contact_sheet is not None:
            forget_run(out, has_stages)
        chosen = choose_normalization(self.normalization, self.train, self.train.image_shape[0])
        made = run_method(
            self.train,
            make(chosen),
            normalization=chosen,
            random_state=self.seed,
            progress=not self.quiet,
        )
        if not write:
            return
        self.files.write(made, self.drop_weights)
        if self.files.contact_sheet is not None:
            write_run(made, out, self.command, has_stages)
        self._print_result(made, time.perf_counter() - start)

    def _print_result(self, made: DistilledSet, seconds: float) -> None:
        from ddkern.cli.sets import describe_set, print_classes

        described = describe_set(made, self.files.set)
        if self.as_json:
            print_json({**described, **self.files.describe(), "seconds": seconds})
            return
        print_classes(described["classes"])
        typer.echo()
        if made.student_lr is not None:
            typer.echo(f"learning rate of students: {made.student_lr:.6g}")
        for path in self.files.all():
            typer.echo(f"wrote {path}")
        typer.echo(f"{seconds:.2f} seconds")


def format_options(options: dict[str, Any]) -> str:
    """Options of a method in one line; a long list is its length, a nested record its name."""

    def shown(value: Any) -> Any:
        if isinstance(value, list) and len(value) > 4:
            return f"{len(value)} entries"
        if isinstance(value, dict):
            return next((value[key] for key in ("name", "type", "model") if key in value), value)
        return value

    return ", ".join(f"{name}={shown(value)}" for name, value in options.items())
