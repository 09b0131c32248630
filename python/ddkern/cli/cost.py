# SPDX-License-Identifier: Apache-2.0
"""What a distillation will cost, from a rehearsal of a few seconds."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddkern.cli.latents import LatentOptions, load_or_identity
from ddkern.cli.output import format_bytes, print_table
from ddkern.cli.prior import make_recipe

if TYPE_CHECKING:
    from ddkern.data import ImageDataset

__all__ = ["estimate", "print_estimate", "stage_cost"]

_ENCODED_IMAGES = 64
_DECODED_IMAGES = 8


def estimate(
    train: ImageDataset, ipc: int, options: LatentOptions, device: str
) -> list[dict[str, Any]]:
    """Seconds, memory and disk of each stage of a distillation through a codec.

    Steps of a training, the encoding of some images and the decoding of some latents are carried
    out and scaled up. Not estimated, since they are short beside the others: the figures of a
    prior, the teacher, quantization, relabelling.

    Returns
    -------
    list of dict
        ``stage``, ``seconds``, ``memory`` (largest size of the process so far, in bytes; of the
        device where it is another one) and ``disk`` (bytes that are kept).
    """
    with tempfile.TemporaryDirectory(prefix="ddkern-") as temporary:
        stages = []
        prior: Path | str | None = options.prior
        if prior in (None, "fit"):
            from ddkern.priors import rehearse_prior

            prior = Path(temporary) / "prior"
            recipe = make_recipe(train.image_shape, options.effort or 1.0)
            seconds = sum(rehearse_prior(train, prior, recipe, device=device).values())
            stages.append(stage_cost("prior", seconds, device, _size_of(prior)))
        codec = load_or_identity(prior, train, options, device)
        n = len(train)
        rows = np.arange(min(n, _ENCODED_IMAGES))
        images = train.images(rows)
        seconds = _seconds(lambda: codec.encode(images)) / len(rows) * n
        values = int(np.prod(codec.latent_shape))
        stages.append(stage_cost("encode", seconds, device, 4 * values * n))
        latents = codec.encode(images[:_DECODED_IMAGES])
        labels = train.labels[: len(latents)]
        arguments = codec.decoding(options.strength, options.steps, options.guidance)
        seconds = _seconds(lambda: codec.decode(latents, labels, **arguments))
        made = ipc * train.n_classes
        disk = made * int(np.prod(train.image_shape))
        stages.append(stage_cost("decode", seconds / len(latents) * made, device, disk))
        return stages


def print_estimate(stages: list[dict[str, Any]]) -> None:
    """A table of the stages and their sum."""
    rows = [
        (
            stage["stage"],
            _duration(stage["seconds"]),
            format_bytes(stage["memory"]),
            format_bytes(stage["disk"]),
        )
        for stage in stages
    ]
    total = (
        "together",
        _duration(sum(stage["seconds"] for stage in stages)),
        format_bytes(max(stage["memory"] for stage in stages)),
        format_bytes(sum(stage["disk"] for stage in stages)),
    )
    print_table(("stage", "about", "memory", "disk"), [*rows, total])


def stage_cost(name: str, seconds: float, device: str, disk: int) -> dict[str, Any]:
    """A line of :func:`estimate`, with the memory that was taken so far."""
    return {"stage": name, "seconds": seconds, "memory": _peak_bytes(device), "disk": disk}


def _seconds(work: Any) -> float:
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peak_bytes(device: str) -> int:
    import resource

    import torch

    from ddkern.training import choose_device

    where = choose_device(device)
    if where.type == "cuda":
        return int(torch.cuda.max_memory_allocated(where))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _size_of(folder: Path) -> int:
    # Checkpoints lie in folders of their own and are removed at the end.
    kept = ("vae", "transformer", "scheduler")
    return sum(file.stat().st_size for name in kept for file in (folder / name).rglob("*"))


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
