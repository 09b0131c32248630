# SPDX-License-Identifier: Apache-2.0
"""The problems that are measured, and their data."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

CIFAR10_VARIABLE = "DDKERN_CIFAR10"

# A stream from which no group of any shape below converges within `Shape.iterations`.
_SEEDS_STREAM = 20_240_229


class DataUnavailableError(RuntimeError):
    """The data of a shape is not on this machine; the message says what to set."""


@dataclass(frozen=True)
class Shape:
    """One line of a table: ``groups`` problems of ``n`` rows, ``d`` features and ``k`` centroids.

    Parameters
    ----------
    name : str
        Identifier in file names, command lines and plots.
    data : {"gauss", "cifar10"}
        ``"gauss"``: feature ``j`` is normal with standard deviation ``1 / sqrt(1 + j)``, a spectrum
        like that of natural images and their latents. ``"cifar10"``: the pixels of one class a
        group, 0 to 255.
    iterations : int
        Lloyd iterations of the fixed-length runs: fewer than any group needs to converge, so that
        everybody executes exactly this many.
    n_init : int
        Restarts of the end-to-end runs.
    """

    name: str
    data: Literal["gauss", "cifar10"]
    groups: int
    n: int
    d: int
    k: int
    iterations: int
    n_init: int = 1

    @property
    def label(self) -> str:
        """The shape as tables print it."""
        prefix = "CIFAR-10, " if self.data == "cifar10" else ""
        suffix = f", n_init={self.n_init}" if self.n_init > 1 else ""
        return f"{prefix}{self.groups} x {self.n} x {self.d}, k={self.k}{suffix}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types, in order of declaration."""
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Shape:
        """Invert `to_json`."""
        return Shape(**fields)


LATENTS_10 = Shape("latents-k10", "gauss", 8, 1300, 4096, 10, iterations=13)
LATENTS_50 = Shape("latents-k50", "gauss", 8, 1300, 4096, 50, iterations=8)
LATENTS_200 = Shape("latents-k200", "gauss", 8, 1300, 4096, 200, iterations=3)
CIFAR_10 = Shape("cifar10-k10", "cifar10", 10, 5000, 3072, 10, iterations=30)
CIFAR_50 = Shape("cifar10-k50", "cifar10", 10, 5000, 3072, 50, iterations=26)
FEATURES = Shape("features-k50", "gauss", 10, 5000, 512, 50, iterations=20)
CODEBOOK_256 = Shape("codebook-k256", "gauss", 1, 100_000, 128, 256, iterations=6)
CODEBOOK_1000 = Shape("codebook-k1000", "gauss", 1, 20_000, 768, 1000, iterations=10)

LLOYD: tuple[Shape, ...] = (
    LATENTS_10,
    LATENTS_50,
    LATENTS_200,
    CIFAR_10,
    CIFAR_50,
    FEATURES,
    CODEBOOK_256,
    CODEBOOK_1000,
)
END_TO_END: tuple[Shape, ...] = (
    *LLOYD,
    replace(LATENTS_50, name="latents-k50-restarts", n_init=10),
)

# What the scaling plots vary, around one base problem.
_SCALING_BASE = Shape("base", "gauss", 4, 2000, 1024, 50, iterations=6)
SCALING_SIZES: dict[str, tuple[int, ...]] = {
    "n": (1000, 2000, 4000, 8000, 16_000),
    "d": (64, 256, 1024, 4096, 16_384),
    "k": (5, 10, 20, 50, 100, 200),
    "groups": (1, 2, 4, 8, 16, 32, 64),
}
SCALING: tuple[Shape, ...] = tuple(
    replace(_SCALING_BASE, name=f"{axis}-{size}", **{axis: size})  # type: ignore[arg-type]
    for axis, sizes in SCALING_SIZES.items()
    for size in sizes
)

SUITES: dict[str, tuple[Shape, ...]] = {
    "lloyd": LLOYD,
    "end_to_end": END_TO_END,
    "scaling": SCALING,
}


@dataclass(frozen=True)
class Problem:
    """The data of a shape, as every implementation gets it.

    Attributes
    ----------
    x : (groups * n, d) float32, C-contiguous
        Rows of group 0, then of group 1, and so on.
    group_ids : (groups * n,) int64
        The same grouping as ids.
    shape : Shape
    """

    x: Float32
    group_ids: npt.NDArray[np.int64]
    shape: Shape

    @staticmethod
    def of(x: Float32, shape: Shape) -> Problem:
        """Check ``x`` against ``shape`` and add the ids."""
        if x.shape != (shape.groups * shape.n, shape.d) or x.dtype != np.float32:
            raise ValueError(f"x is {x.dtype} {x.shape}; it must be the float32 data of {shape}")
        return Problem(np.ascontiguousarray(x), np.repeat(np.arange(shape.groups), shape.n), shape)

    def rows(self, group: int) -> Float32:
        """Return a view of the rows of one group, ``(n, d)``."""
        return self.x[group * self.shape.n : (group + 1) * self.shape.n]

    def centroids(self, stacked: Float32, group: int) -> Float32:
        """Return a view of one group's part of ``(groups * k, d)`` centroids."""
        return stacked[group * self.shape.k : (group + 1) * self.shape.k]


def make_data(shape: Shape) -> Float32:
    """Make the rows of a shape: ``(groups * n, d)`` float32, the same on every machine.

    Raises
    ------
    DataUnavailableError
        For CIFAR-10 where ``DDKERN_CIFAR10`` does not lead to it.
    """
    if shape.data == "cifar10":
        by_class = _cifar10_by_class()
        return by_class.reshape(-1, by_class.shape[-1]).astype(np.float32)
    rng = np.random.default_rng([shape.groups, shape.n, shape.d])
    scale = 1.0 / np.sqrt(1.0 + np.arange(shape.d))
    x = rng.standard_normal((shape.groups * shape.n, shape.d), dtype=np.float32)
    x *= scale.astype(np.float32)
    return x


def make_seeds(problem: Problem) -> Float32:
    """Draw the initial centroids of the fixed-length runs: ``(groups * k, d)`` rows of the data.

    Distinct rows drawn uniformly: no library's own seeding is favoured, and the runs are longer
    than from k-means++, so that nobody converges within the fixed number of iterations.
    """
    shape = problem.shape
    parts = []
    for group in range(shape.groups):
        rng = np.random.default_rng([_SEEDS_STREAM, shape.n, shape.d, shape.k, group])
        parts.append(problem.rows(group)[rng.choice(shape.n, size=shape.k, replace=False)])
    return np.concatenate(parts)


def _cifar10_by_class() -> npt.NDArray[np.uint8]:
    # Decoding 50000 PNG files takes longer than most benchmarks: keep the pixels between runs.
    folder = os.environ.get(CIFAR10_VARIABLE)
    if not folder:
        raise DataUnavailableError(f"{CIFAR10_VARIABLE} is not set to a folder with CIFAR-10")
    files = sorted(Path(folder).glob("train-*.parquet"))
    if not files:
        raise DataUnavailableError(f"{CIFAR10_VARIABLE}={folder} holds no train-*.parquet")
    cache = Path(tempfile.gettempdir()) / f"ddkern-bench-{os.getuid()}" / "cifar10_by_class.npy"
    if cache.exists():
        cached: npt.NDArray[np.uint8] = np.load(cache)
        return cached
    try:
        import pyarrow.parquet
        from PIL import Image
    except ImportError as error:
        raise DataUnavailableError(
            f"decoding CIFAR-10 needs pyarrow and pillow: {error}"
        ) from error
    classes: list[list[npt.NDArray[np.uint8]]] = [[] for _ in range(10)]
    for file in files:
        table = pyarrow.parquet.read_table(file, columns=["img", "label"])
        for picture, label in zip(table["img"], table["label"], strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(picture["bytes"].as_py())), dtype=np.uint8)
            classes[label.as_py()].append(pixels.reshape(-1))
    by_class = np.stack([np.stack(rows) for rows in classes])
    cache.parent.mkdir(mode=0o700, exist_ok=True)
    partial = cache.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, by_class)
    partial.replace(cache)
    return by_class
