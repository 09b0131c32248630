# SPDX-License-Identifier: Apache-2.0
"""``ddkern experts train``, ``import`` and ``show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddkern.cli.arguments import (
    AsJson,
    Channels,
    Config,
    Dataset,
    Device,
    Normalizing,
    Quiet,
    Seed,
    Size,
    parse_arch,
)
from ddkern.cli.output import format_bytes, format_percent, print_json, print_pairs

if TYPE_CHECKING:
    from ddkern.augment import DSA
    from ddkern.experts import ExpertBuffer

__all__ = ["experts", "parse_augment"]

experts = typer.Typer(help="Networks whose training is matched.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="A folder, new or of the same command before.")]
StoredAs = Annotated[str, typer.Option(help="Numbers in the files: float32 or bfloat16.")]
Network = Annotated[
    str,
    typer.Option(help="A network, and options after a colon, such as convnet-d3:width=64."),
]


@experts.callback()
def _group() -> None:
    """Networks that are trained on real images, with all that they were on the way."""


@experts.command()
def train(
    dataset: Dataset,
    out: Out,
    size: Size = None,
    channels: Channels = None,
    n_experts: Annotated[int, typer.Option(help="Networks, each with weights of its own.")] = 10,
    epochs: Annotated[int, typer.Option(help="For each network.")] = 50,
    network: Network = "convnet-d3",
    lr: Annotated[float, typer.Option(help="Learning rate of plain SGD.")] = 0.01,
    batch_size: Annotated[int, typer.Option(help="Images in a step.")] = 256,
    augment: Annotated[
        str, typer.Option(help="'dsa', operations of it such as crop_flip, or 'none'.")
    ] = "dsa",
    gsam: Annotated[
        str | None,
        typer.Option(help="Go for flat minima (FTD): rho and alpha, such as 0.01,1."),
    ] = None,
    normalization: Normalizing = "fit",
    stored_as: StoredAs = "float32",
    at_once: Annotated[int, typer.Option(help="Networks that are trained side by side.")] = 1,
    seed: Seed = 0,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    device: Device = "auto",
    config: Config = None,  # noqa: ARG001  # its callback has read it
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train networks and keep them after every epoch. Repeat an interrupted command to go on."""
    from ddkern.checks import as_count, as_number, as_seed
    from ddkern.cli.sets import DataOptions, check_normalization, choose_normalization
    from ddkern.optional import import_optional

    as_seed("--seed", seed)
    for name, value in (("--n-experts", n_experts), ("--epochs", epochs), ("--at-once", at_once)):
        as_count(name, value)
    as_count("--batch-size", batch_size)
    as_number("--lr", lr, at_least=0)
    import_optional("torch", "training experts", "torch")
    from ddkern.experts import train_experts
    from ddkern.training import Decay, Optimizer, Recipe

    model, model_options = parse_arch("--network", network)
    chosen = parse_augment(augment)
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=Optimizer(name="sgd", lr=lr),
        decay=Decay(kind="constant"),
        augment=() if chosen is None else (chosen,),
    )
    data = DataOptions(dataset, size, channels)
    images = data.training()
    check_normalization(normalization, images)
    buffer = train_experts(
        images,
        out,
        n_experts=n_experts,
        normalization=choose_normalization(normalization, images, images.image_shape[0]),
        model=model,
        model_options=model_options,
        recipe=recipe,
        sharpness=None if gsam is None else _parse_gsam(gsam),
        test=data.test(),
        dtype=stored_as,  # type: ignore[arg-type]  # checked there
        at_once=at_once,
        random_state=seed,
        precision=precision,
        device=device,
        progress=not quiet,
    )
    _print(buffer, as_json)


@experts.command("import")
def import_(
    files: Annotated[
        list[Path], typer.Argument(help="replay_buffer_*.pt of MTT's code, in their order.")
    ],
    out: Out,
    n_classes: Annotated[int, typer.Option(help="Classes that the networks tell apart.")],
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels.")],
    in_channels: Annotated[int, typer.Option(help="Channels of the images.")] = 3,
    network: Network = "convnet-d3",
    stored_as: StoredAs = "float32",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Read the experts of other programs. Nothing in their files is executed."""
    from ddkern.optional import import_optional

    import_optional("torch", "reading .pt files", "torch")
    from ddkern.experts import import_replay_buffers

    model, model_options = parse_arch("--network", network)
    buffer = import_replay_buffers(
        files,
        out,
        n_classes=n_classes,
        image_size=(image_size, image_size),
        in_channels=in_channels,
        model=model,
        model_options=model_options,
        dtype=stored_as,  # type: ignore[arg-type]  # checked there
        progress=not quiet,
    )
    _print(buffer, as_json)


@experts.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Of experts.")], as_json: AsJson = False
) -> None:
    """Say what a folder of experts holds."""
    from ddkern.optional import import_optional

    import_optional("torch", "reading experts", "torch")
    from ddkern.experts import ExpertBuffer

    _print(ExpertBuffer.open(folder), as_json)


def parse_augment(text: str, option: str = "--augment") -> DSA | None:
    """``"dsa"`` or a strategy of it as an augmentation, ``"none"`` as None."""
    from ddkern.augment import DSA
    from ddkern.cli.arguments import naming

    if text == "none":
        return None
    with naming(option):
        return DSA() if text == "dsa" else DSA(strategy=text)


def _parse_gsam(text: str) -> Any:
    from ddkern.cli.arguments import naming
    from ddkern.experts import GSAM

    with naming("--gsam"):
        try:
            rho, alpha = (float(part) for part in text.split(","))
        except ValueError:
            raise ValueError(
                f"{text!r}; it must be two numbers between a comma, such as 0.01,1"
            ) from None
        return GSAM(rho=rho, alpha=alpha)


def _print(buffer: ExpertBuffer, as_json: bool) -> None:
    accuracies = buffer.accuracies()
    size = sum(path.stat().st_size for path in buffer.folder.glob("expert-*.bin"))
    if as_json:
        print_json(
            {
                "experts": str(buffer.folder),
                "numbers": list(buffer.numbers),
                "checkpoints": buffer.n_checkpoints,
                "parameters": buffer.n_parameters,
                "stored_as": buffer.dtype,
                "bytes": size,
                "accuracies": {str(number): value for number, value in accuracies.items()},
                "conditions": dict(buffer.conditions),
            }
        )
        return
    values = list(accuracies.values())
    mean = sum(values) / len(values) if values else 0.0
    least, most = (format_percent(pick(values)) if values else "" for pick in (min, max))
    print_pairs(
        {
            "experts": f"{len(buffer)} in {buffer.folder}",
            "network": f"{buffer.conditions['model']}, {buffer.n_parameters} parameters",
            "checkpoints": f"{buffer.n_checkpoints} each, {buffer.dtype}, {format_bytes(size)}",
            "test accuracy": f"{format_percent(mean)} % ({least} to {most})"
            if values
            else "not tested",
        }
    )
