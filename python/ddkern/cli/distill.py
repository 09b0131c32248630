# SPDX-License-Identifier: Apache-2.0
"""``ddkern distill``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddkern.cli.arguments import (
    AsJson,
    Dataset,
    Device,
    Force,
    Quiet,
    Seed,
    naming,
    refuse_existing,
)
from ddkern.cli.output import print_json, print_pairs

if TYPE_CHECKING:
    from ddkern.data import DistilledSet, ImageDataset
    from ddkern.distill import Method

__all__ = ["distill", "format_options"]

# Formats of --export, and what their files are called: the name of the set with this ending.
_EXPORTS = {"folder": ".images", "parquet": ".parquet", "pt": ".pt"}

_FEATURES = ("pixels", "pca", "network")


def distill(
    method: Annotated[str, typer.Option(help="random, herding, k-center, k-means or forgetting.")],
    dataset: Dataset,
    out: Annotated[
        Path,
        typer.Option(
            help="A folder for set.safetensors and contact_sheet.png, or a .safetensors file for "
            "the set alone."
        ),
    ],
    ipc: Annotated[int, typer.Option(help="Images per class.")] = 10,
    features: Annotated[
        str | None,
        typer.Option(help="What images are compared by: pixels (the default), pca or network."),
    ] = None,
    pca_components: Annotated[int | None, typer.Option(help="For --features pca.")] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="For --features network: a name, such as convnet-d3 (the default), and options "
            "after a colon (convnet-d3:width=64). Untrained, its weights drawn from --seed."
        ),
    ] = None,
    network_weights: Annotated[
        Path | None, typer.Option(help="Trained weights of --network, a .safetensors file.")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="For --method forgetting: one number a training image, a .npy file."),
    ] = None,
    normalization: Annotated[
        str,
        typer.Option(
            help="From pixels to inputs: fit, zca (both on the training images), identity, or the "
            "published numbers of cifar10, mnist, fashion_mnist, svhn or imagenet."
        ),
    ] = "fit",
    seed: Seed = 0,
    export: Annotated[
        list[str] | None,
        typer.Option(help="Also write folder, parquet or pt files beside the set; repeatable."),
    ] = None,
    drop_weights: Annotated[
        bool, typer.Option("--drop-weights", help="Let --export pt leave out unequal weights.")
    ] = False,
    device: Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would be done, and end.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Make a small set that stands for a large one."""
    from ddkern.checks import as_seed
    from ddkern.cli.sets import check_normalization, choose_normalization, open_training
    from ddkern.distill import distill as run_method

    as_seed("--seed", seed)
    files = _Files.beside(out, export or [])
    refuse_existing(files.all(), force)
    files.check_packages()
    train = open_training(dataset)
    chosen = _choose_method(
        method,
        ipc,
        scores,
        _FeatureOptions(features, pca_components, network, network_weights, device),
        train,
        seed,
    )
    chosen.check(train)
    check_normalization(normalization, train)
    if dry_run:
        _print_plan(chosen, train, normalization, seed, files, as_json)
        return
    start = time.perf_counter()
    made = run_method(
        train,
        chosen,
        normalization=choose_normalization(normalization, train, train.image_shape[0]),
        random_state=seed,
        progress=not quiet,
    )
    seconds = time.perf_counter() - start
    files.write(made, drop_weights)
    _print_result(made, files, seconds, as_json)


@dataclass(frozen=True, slots=True)
class _Files:
    """What is written where."""

    set: Path
    contact_sheet: Path | None
    exports: dict[str, Path]

    @classmethod
    def beside(cls, out: Path, formats: list[str]) -> _Files:
        from ddkern.checks import check_choice

        alone = out.suffix == ".safetensors"
        if not alone and out.exists() and not out.is_dir():
            raise ValueError(
                f"--out={str(out)!r} is a file; it must be a folder, or a file that ends in "
                ".safetensors"
            )
        base = out.with_suffix("") if alone else out / "set"
        for name in formats:
            check_choice("--export", name, tuple(_EXPORTS))
        return cls(
            base.with_name(f"{base.name}.safetensors"),
            None if alone else out / "contact_sheet.png",
            {name: base.with_name(f"{base.name}{_EXPORTS[name]}") for name in formats},
        )

    def all(self) -> list[Path]:
        sheet = [] if self.contact_sheet is None else [self.contact_sheet]
        return [self.set, *sheet, *self.exports.values()]

    def check_packages(self) -> None:
        """Hours may pass before anything is written; a missing package is told before them."""
        from ddkern.optional import import_optional

        import_optional("safetensors", "writing sets", "data")
        if self.contact_sheet is not None or {"folder", "parquet"} & set(self.exports):
            import_optional("PIL.Image", "writing images", "data")
        if "parquet" in self.exports:
            import_optional("pyarrow", "writing parquet files", "data")
        if "pt" in self.exports:
            import_optional("torch", "writing .pt files", "torch")

    def write(self, made: DistilledSet, drop_weights: bool) -> None:
        from ddkern.data import save_image_folder, save_parquet, save_pt_files
        from ddkern.files import replaced_when_complete

        self.set.parent.mkdir(parents=True, exist_ok=True)
        made.save(self.set)
        if self.contact_sheet is not None:
            from ddkern.report import draw_distilled_set

            with replaced_when_complete(self.contact_sheet) as file:
                draw_distilled_set(made).save(file, "PNG")
        for name, path in self.exports.items():
            if name == "folder":
                save_image_folder(made, path)
            elif name == "parquet":
                save_parquet(made, path)
            else:
                weight = made.sample_weight
                if not drop_weights and not (weight == weight[0]).all():
                    raise ValueError(
                        f"--export=pt: weights range from {weight.min():.4g} to "
                        f"{weight.max():.4g}, and .pt files have none; --drop-weights leaves them "
                        f"out (the set with its weights is in {self.set})"
                    )
                save_pt_files(made, path, drop_weights=drop_weights)

    def describe(self) -> dict[str, Any]:
        """Paths by name, as plain values."""
        sheet = None if self.contact_sheet is None else str(self.contact_sheet)
        exports = {name: str(path) for name, path in self.exports.items()}
        return {"set": str(self.set), "contact_sheet": sheet, "exports": exports}


@dataclass(frozen=True, slots=True)
class _FeatureOptions:
    """The options that say what images are compared by; None where they were not given."""

    features: str | None
    pca_components: int | None
    network: str | None
    network_weights: Path | None
    device: str

    def check(self) -> None:
        """Refuse what would have no effect."""
        from ddkern.checks import check_choice

        if self.features is not None:
            check_choice("--features", self.features, _FEATURES)
        for option, value, needed in (
            ("--pca-components", self.pca_components, "pca"),
            ("--network", self.network, "network"),
            ("--network-weights", self.network_weights, "network"),
        ):
            if value is not None and self.features != needed:
                raise ValueError(f"{option}={str(value)!r} is for --features {needed}")

    def build(self, train: ImageDataset, seed: int) -> Any:
        """The feature space."""
        from ddkern.checks import as_count
        from ddkern.distill import PcaFeatures, PixelFeatures

        if self.features == "pca":
            if self.pca_components is None:
                raise ValueError("--features=pca needs --pca-components, an integer of at least 1")
            return PcaFeatures(n_components=as_count("--pca-components", self.pca_components))
        if self.features != "network":
            return PixelFeatures()
        from ddkern.optional import import_optional

        import_optional("torch", "--features=network", "torch")
        from ddkern.cli.networks import build_network
        from ddkern.distill import NetworkFeatures
        from ddkern.training import choose_device

        model = build_network(
            "--network",
            self.network or "convnet-d3",
            "--network-weights",
            self.network_weights,
            n_classes=train.n_classes,
            image_shape=train.image_shape,
            seed=seed,
        )
        return NetworkFeatures(model=model, device=choose_device(self.device))


def _choose_method(
    name: str,
    ipc: int,
    scores: Path | None,
    features: _FeatureOptions,
    train: ImageDataset,
    seed: int,
) -> Method:
    from ddkern.checks import as_count, check_choice
    from ddkern.distill import make_method, method_names

    check_choice("--method", name, method_names())
    features.check()
    options: dict[str, Any] = {"ipc": as_count("--ipc", ipc)}
    if (scores is not None) != (name == "forgetting"):
        given = "--scores is missing" if scores is None else f"--scores={str(scores)!r} is given"
        raise ValueError(f"{given}; it goes with --method forgetting, which needs it")
    if scores is not None:
        options["scores"] = _read_scores(scores)
    if name in ("random", "forgetting"):
        if features.features is not None:
            raise ValueError(
                f"--features={features.features!r}, but --method {name} compares no images"
            )
    else:
        options["features"] = features.build(train, seed)
    return make_method(name, **options)


def _read_scores(path: Path) -> Any:
    import numpy as np

    if not path.is_file():
        raise FileNotFoundError(f"--scores={str(path)!r} does not exist; it must be a .npy file")
    with naming(f"--scores={str(path)!r}"):
        return np.load(path, allow_pickle=False)


def _print_plan(
    method: Method,
    train: ImageDataset,
    normalization: str,
    seed: int,
    files: _Files,
    as_json: bool,
) -> None:
    if as_json:
        plan = {"method": method.name, "options": method.options(), "dataset": repr(train)}
        print_json({**plan, "normalization": normalization, "seed": seed, **files.describe()})
        return
    print_pairs(
        {
            "method": method.name,
            "options": format_options(method.options()),
            "dataset": repr(train),
            "normalization": normalization,
            "seed": seed,
            "writes": ", ".join(map(str, files.all())),
        }
    )


def _print_result(made: DistilledSet, files: _Files, seconds: float, as_json: bool) -> None:
    from ddkern.cli.sets import describe_set, print_classes

    described = describe_set(made, files.set)
    if as_json:
        print_json({**described, **files.describe(), "seconds": seconds})
        return
    print_classes(described["classes"])
    typer.echo()
    for path in files.all():
        typer.echo(f"wrote {path}")
    typer.echo(f"{seconds:.2f} seconds")


def format_options(options: dict[str, Any]) -> str:
    """Options of a method in one line; a long list is its length."""
    shown = {
        name: f"{len(value)} entries" if isinstance(value, list) and len(value) > 4 else value
        for name, value in options.items()
    }
    return ", ".join(f"{name}={value}" for name, value in shown.items())
