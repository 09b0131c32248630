# SPDX-License-Identifier: Apache-2.0
"""Options that several subcommands have, and checks that name them as the user wrote them."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "AsJson",
    "Channels",
    "Config",
    "Dataset",
    "Device",
    "Force",
    "Normalizing",
    "Quiet",
    "Seed",
    "SetPath",
    "Size",
    "command_of",
    "naming",
    "parse_arch",
    "read_config",
    "refuse_existing",
]


def _set_of_run(path: Path) -> Path:
    """The set in the folder of a run, or what else is meant."""
    own = path / "set.safetensors"
    return own if own.is_file() else path


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the options in a TOML file as defaults of this command.

    Names are those of the command line without the dashes in front. They stand at the top, or in a
    table that is named like the command.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is not TOML, or it has an option that the command does not.
    """
    if path is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"--config={str(path)!r} does not exist; it must be a TOML file")
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"--config={str(path)!r} is not TOML: {error}") from error
    options = content.get(str(context.info_name), content)
    known = {
        spelling.removeprefix("--"): parameter.name
        for parameter in context.command.params
        for spelling in parameter.opts
    }
    found = {}
    for name, value in options.items():
        if name.replace("_", "-") not in known or name == "config":
            raise ValueError(
                f"--config={str(path)!r} has {name!r}; ddkern {context.info_name} has no such "
                "option"
            )
        found[known[name.replace("_", "-")]] = value
    context.default_map = found
    return path


def command_of(context: typer.Context, leave_out: Iterable[str]) -> str:
    """The command line of this call for a shell, options of a file among them.

    Parameters
    ----------
    context : typer.Context
    leave_out : iterable of str
        Parameters that change nothing in what is made.
    """
    words = ["ddkern", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in leave_out or source is None or source.name == "DEFAULT":
            continue
        value = context.params[name]
        if value is True:
            words.append(parameter.opts[0])
        elif value is not False:
            values = value if isinstance(value, list | tuple) else [value]
            words += [word for one in values for word in (parameter.opts[0], str(one))]
    return shlex.join(words)


Dataset = Annotated[
    str,
    typer.Option(
        help="'digits', or the path of a data set: parquet, IDX, .npz or .npy files, or a folder "
        "with one folder of images a class."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Scale the shorter side of encoded images to this and cut out the middle: needed "
        "where images have several sizes."
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(
        help="Read encoded images as grey (1) or RGB (3); as the first one is by default."
    ),
]
SetPath = Annotated[
    Path,
    typer.Argument(
        metavar="SET",
        help="A .safetensors file, the folder of a run that has one, or a folder of .pt files.",
        callback=_set_of_run,
    ),
]
Seed = Annotated[int, typer.Option(help="Decides everything that is random.")]
Device = Annotated[
    str,
    typer.Option(
        help="Where networks run: auto (under torchrun a GPU a process), cpu, cuda, cuda:1, ..."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="A TOML file of options, such as ipc = 10; those on the command line come before it.",
        is_eager=True,
        callback=read_config,
    ),
]
Normalizing = Annotated[
    str,
    typer.Option(
        help="From pixels to inputs: fit, zca (both on the training images), identity, or the "
        "published numbers of cifar10, mnist, fashion_mnist, svhn or imagenet."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]


@contextlib.contextmanager
def naming(argument: str) -> Iterator[None]:
    """Begin messages of the block with the argument that they are about."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{argument}: {error}") from error
    except FileExistsError as error:
        raise FileExistsError(f"{argument}: {error}") from error
    except TypeError as error:
        raise TypeError(f"{argument}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error


def parse_arch(option: str, text: str) -> tuple[str, dict[str, Any]]:
    """``"resnet-18:norm=batch"`` as the name of a network and its options.

    Parameters
    ----------
    option : str
        What messages call it.
    text : str
        A name of :func:`ddkern.models.model_names`, and after a colon ``key=value`` pairs between
        commas. Values are JSON where they can be read so, and strings otherwise.

    Raises
    ------
    ValueError
        If there is no such name, or a pair has no ``=``.
    """
    from ddkern.checks import check_choice
    from ddkern.models import model_names

    name, _, rest = text.partition(":")
    check_choice(option, name, model_names())
    options: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(
                f"{option}={text!r}; after the colon it must have key=value pairs, such as "
                "resnet-18:norm=batch"
            )
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return name, options


def refuse_existing(paths: list[Path], force: bool) -> None:
    """Raise FileExistsError where something lies that would be replaced.

    A folder is never replaced: what else is in it would be lost.
    """
    for path in paths:
        if path.is_dir():
            raise FileExistsError(f"{path} is a folder, which is not replaced; remove it first")
        if path.exists() and not force:
            raise FileExistsError(f"{path} exists already; --force replaces it")
