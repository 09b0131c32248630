# SPDX-License-Identifier: Apache-2.0
"""Networks with weights from files. Importing this module needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ddkern.cli.arguments import parse_arch
from ddkern.models import make_model
from ddkern.optional import import_optional

__all__ = ["build_network"]


def build_network(
    arch_option: str,
    arch: str,
    weights_option: str,
    weights: Path | None,
    *,
    n_classes: int,
    image_shape: tuple[int, int, int],
    seed: int,
) -> nn.Module:
    """A network by name, with the weights of a ``.safetensors`` file if there is one.

    Parameters
    ----------
    arch_option, weights_option : str
        What messages call the two arguments after them.
    arch : str
        As in :func:`ddkern.cli.arguments.parse_arch`.
    weights : Path or None
        A state dictionary that fits exactly. None leaves the network untrained.
    n_classes : int
    image_shape : (int, int, int)
        Channels, height, width.
    seed : int
        Of untrained weights.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        If an argument breaks its rule, or the weights are those of another network.
    """
    name, options = parse_arch(arch_option, arch)
    channels, height, width = image_shape
    network = make_model(
        name,
        n_classes=n_classes,
        image_size=(height, width),
        in_channels=channels,
        seed=seed,
        **options,
    )
    if weights is not None:
        state = _read_state(weights_option, weights)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            # torch lists every tensor; the first one tells which network it is not.
            reason = str(error).splitlines()[1:2] or [str(error)]
            raise ValueError(
                f"{weights_option}={str(weights)!r} holds the weights of another network than "
                f"{arch} for {n_classes} classes of {image_shape} images: "
                f"{reason[0].strip()[:200]}"
            ) from error
    return network


def _read_state(option: str, path: Path) -> dict[str, Any]:
    safetensors = import_optional("safetensors", "reading weights", "data")
    read = import_optional("safetensors.torch", "reading weights", "data")
    if not path.is_file():
        raise FileNotFoundError(f"{option}={str(path)!r} does not exist; it must be a file")
    try:
        state: dict[str, Any] = read.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{option}={str(path)!r} is not a .safetensors file: {error}") from error
    return state
