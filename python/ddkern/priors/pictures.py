# SPDX-License-Identifier: Apache-2.0
"""What a prior looks like: its losses, what it gives back, what it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddkern.data import ImageDataset
from ddkern.files import replaced_when_complete
from ddkern.latents import DitCodec
from ddkern.priors.validation import draw_from_noise

__all__ = ["draw_curves", "draw_reconstructions", "draw_samples"]

_TILE = 48  # pixels; smaller images are enlarged by a whole factor to at least this
_GAP = 2
_SHOWN_CLASSES = 20
_SHOWN_IMAGES = 16


def draw_curves(losses: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> None:
    """Loss against step, one panel a training, the loss in powers of ten."""
    # Not pyplot, which would choose a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(losses), 2.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, len(losses), squeeze=False)[0]
    for panel, (title, curve) in zip(panels, losses.items(), strict=True):
        steps, values = zip(*curve, strict=True)
        panel.plot(steps, values, color="#2b5c8a", linewidth=1.3)
        panel.set_yscale("log")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("step")
        panel.grid(which="both", alpha=0.25, linewidth=0.6)
    panels[0].set_ylabel("loss")
    with replaced_when_complete(path) as file:
        figure.savefig(file, format="png")


def draw_reconstructions(codec: DitCodec, dataset: ImageDataset, path: Path) -> None:
    """Images, and under each of them what is left of it after encoding and decoding."""
    rows = np.linspace(0, len(dataset) - 1, min(len(dataset), 2 * _SHOWN_IMAGES)).astype(np.int64)
    images = dataset.images(rows)
    again = codec.decode(codec.encode(images), dataset.labels[rows], strength=0.0)
    half = -(-len(rows) // 2)
    lines = [images[:half], again[:half], images[half:], again[half:]]
    _save_grid([line for line in lines if len(line)], path)


def draw_samples(
    codec: DitCodec, class_names: Sequence[str], per_class: int, seed: int, path: Path
) -> None:
    """Images drawn from noise, a line a class, of the first classes."""
    shown = min(len(class_names), _SHOWN_CLASSES)
    labels = np.repeat(np.arange(shown, dtype=np.int64), per_class)
    images = draw_from_noise(codec, labels, seed)
    _save_grid(list(images.reshape(shown, per_class, *images.shape[1:])), path)


def _save_grid(lines: Sequence[NDArray[np.uint8]], path: Path) -> None:
    channels, height, width = lines[0].shape[1:]
    factor = max(1, -(-_TILE // min(height, width)))
    tall, wide = height * factor + _GAP, width * factor + _GAP
    columns = max(map(len, lines))
    grid = np.full((len(lines) * tall + _GAP, columns * wide + _GAP, channels), 255, np.uint8)
    for r, line in enumerate(lines):
        for c, image in enumerate(line):
            tile = image.transpose(1, 2, 0).repeat(factor, 0).repeat(factor, 1)
            top, left = r * tall + _GAP, c * wide + _GAP
            grid[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    picture = Image.fromarray(grid[..., 0] if channels == 1 else grid)
    with replaced_when_complete(path) as file:
        picture.save(file, "PNG")
