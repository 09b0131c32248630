# SPDX-License-Identifier: Apache-2.0
"""The records that quantize and seed_centroids return, and their file formats."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ddkern import __version__
from ddkern.errors import UnsupportedError
from ddkern.files import replaced_when_complete
from ddkern.kmeans.device_arrays import fetch
from ddkern.typing import Array

__all__ = ["QuantizeResult", "QuantizeStats", "SeedResult"]

_FORMAT = "ddkern.QuantizeResult"
_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class QuantizeStats:
    """How the work of one :func:`ddkern.quantize` call was done.

    Arrays are numpy arrays with one entry a group (or item of a batch), by ascending group id.
    Nothing here except ``empty_cells``, ``cells_reseeded`` and ``restart`` belongs to the result
    proper: the other fields depend on the machine, and the result does not depend on them.

    Attributes
    ----------
    algorithm : tuple of str
        ``"gram"`` or ``"streaming"``, for each group.
    products : tuple of str
        What the last certified products were made of, for each group: ``"bytes"``, ``"bfloat16"``
        or ``"float32"``. Where products of bytes leave too many rows open, a group goes over to
        the next.
    isa : str
        Instruction set level that the kernels used; the architecture of a GPU, such as ``"sm_90"``.
    n_threads : int
        Threads allowed; 0 on a GPU.
    restart : ndarray of int64
        Which of the ``n_init`` restarts was kept.
    rows_assigned : ndarray of int64
        Row assignments made: rows times passes, over all restarts.
    rows_rechecked : ndarray of int64
        Of those, how many the fast product could not certify, so that they were compared with the
        stored values, in float32 first and in float64 where that was not enough.
    rows_exact : ndarray of int64
        Of those, how many float64 could not decide either, so that exact arithmetic did.
    products_skipped : ndarray of int64
        Products of a row with a centroid that had moved which were left out or unfinished. Left
        out, in streaming runs without restarts and with 24 centroids or more of 48 rows or more,
        where an earlier pass shows that the centroid is still too far. Unfinished, where products
        are of bytes, with 64 centroids or more, and a quarter of the features holds most of the
        variance, if those rule the centroid out.
    cells_reseeded : ndarray of int64
        Cells that lost all their points and were moved to the farthest row.
    empty_cells : ndarray of int64
        Cells of mass 0 in the result; not 0 only where a group has fewer distinct rows than k.
    seconds_prepare, seconds_seed, seconds_lloyd : ndarray of float64
        Time by phase. Groups that ran side by side count their own time each.
    seconds_total : float
        Of the whole call.
    """

    algorithm: tuple[str, ...]
    products: tuple[str, ...]
    isa: str
    n_threads: int
    restart: NDArray[np.int64]
    rows_assigned: NDArray[np.int64]
    rows_rechecked: NDArray[np.int64]
    rows_exact: NDArray[np.int64]
    products_skipped: NDArray[np.int64]
    cells_reseeded: NDArray[np.int64]
    empty_cells: NDArray[np.int64]
    seconds_prepare: NDArray[np.float64]
    seconds_seed: NDArray[np.float64]
    seconds_lloyd: NDArray[np.float64]
    seconds_total: float


@dataclass(frozen=True, slots=True, eq=False)
class QuantizeResult:
    """The optimal quantization that :func:`ddkern.quantize` found.

    Arrays are of the library that ``x`` came in, on its device (``stats`` and ``random_state``
    excepted). Those
    with one entry a group always have an axis for it, also when there is a single group: use
    ``result.distortion.item()`` there. G is the number of groups, K the number of all their
    centroids; with ``batch_dims=1`` read (b,) for (G,), (b, k) for (K,) and (b, n) for (n,).

    Attributes
    ----------
    centroids : array, shape (K, *feature)
        By ascending group id; float64 for float64 and for 32- and 64-bit integer data, float32
        otherwise.
    weights : array of float64, shape (K,)
        Cell masses: the share of the group's weight in each cell. They sum to 1 in every group,
        and with them the squared 2-Wasserstein distance of the weighted centroids to the group is
        the distortion.
    groups : array of int64, shape (K,)
        The group id of each centroid; 0 without ``groups`` and in a batch.
    assignment : array of int64, shape (n,)
        For every row of ``x`` the row of ``centroids`` that is nearest among those of its group,
        exactly, the lowest among equals; the index within the item for a batch.
    distortion : array of float64, shape (G,)
        Weighted mean of the squared distance to the assigned centroid.
    distortion_history : tuple of G arrays of float64
        For each iteration, the distortion of the partition it started from, about the means of the
        cells. Never increases.
    inertia : array of float64, shape (G,)
        Distortion times total weight.
    n_iter : array of int64, shape (G,)
        Iterations run.
    converged : array of bool, shape (G,)
        Whether the stopping rule held before ``max_iter``.
    random_state : int or ndarray of uint64, shape (b,)
        The seed that repeats this call, also when ``random_state=None`` drew it.
    stats : QuantizeStats
        How the work was done.
    """

    centroids: Array
    weights: Array
    groups: Array
    assignment: Array
    distortion: Array
    distortion_history: tuple[Array, ...]
    inertia: Array
    n_iter: Array
    converged: Array
    random_state: int | NDArray[np.uint64]
    stats: QuantizeStats

    def __repr__(self) -> str:
        history = len(self.distortion_history)
        distortion = fetch(self.distortion, "distortion").values
        converged = int(np.count_nonzero(fetch(self.converged, "converged").values))
        shown = f"{distortion[0]:.6g}" if history == 1 else f"{distortion.mean():.6g} (mean)"
        return (
            f"QuantizeResult(centroids={tuple(self.centroids.shape)}, "
            f"assignment={tuple(self.assignment.shape)}, groups={history}, distortion={shown}, "
            f"converged={converged}/{history}, random_state={_short_seed(self.random_state)})"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file, ``.npz`` or ``.safetensors`` by suffix.

        The file appears complete or not at all: it is written beside ``path`` under another name
        and then moved. Numbers are stored as they are; ``random_state`` and ``stats`` travel with
        them.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        ValueError
            If the suffix is neither of the two.
        UnsupportedError
            If the suffix is ``.safetensors`` and the package safetensors is not installed.
        """
        target = Path(path)
        file_format = _format_of(target)
        arrays, metadata = _flatten(self)
        with replaced_when_complete(target) as file:
            file_format.write(file, arrays, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> QuantizeResult:
        """Read a file that :meth:`save` wrote. All arrays come back as numpy arrays.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        ValueError
            If the suffix is neither ``.npz`` nor ``.safetensors``, or the file holds something
            else. Nothing in a file is executed (numpy's pickle support stays off).
        UnsupportedError
            If the suffix is ``.safetensors`` and the package safetensors is not installed.
        """
        source = Path(path)
        arrays, metadata = _format_of(source).read(source)
        return _unflatten(arrays, metadata, source)


@dataclass(frozen=True, slots=True, eq=False)
class SeedResult:
    """Starting centroids that :func:`ddkern.seed_centroids` drew.

    Arrays are of the library that ``x`` came in, on its device; ``random_state`` excepted. Shapes
    as in :class:`QuantizeResult`.

    Attributes
    ----------
    centroids : array, shape (K, *feature)
        The chosen rows, in the order of the draws within each group; ready as ``init`` of
        :func:`ddkern.quantize`.
    indices : array of int64, shape (K,)
        Which rows of ``x`` they are; within the item for a batch.
    groups : array of int64, shape (K,)
        The group id of each centroid.
    potential : array of float64, shape (G,)
        Weighted sum of the squared distance of each row to its nearest seed.
    random_state : int or ndarray of uint64, shape (b,)
        The seed that repeats this call.
    """

    centroids: Array
    indices: Array
    groups: Array
    potential: Array
    random_state: int | NDArray[np.uint64]

    def __repr__(self) -> str:
        return (
            f"SeedResult(centroids={tuple(self.centroids.shape)}, "
            f"groups={self.potential.shape[0]}, random_state={_short_seed(self.random_state)})"
        )


def _short_seed(seed: int | NDArray[np.uint64]) -> str:
    return str(seed) if isinstance(seed, int) else f"<{len(seed)} seeds>"


# -- files ---------------------------------------------------------------------------------------

_RESULT_ARRAYS = (
    "centroids",
    "weights",
    "groups",
    "assignment",
    "distortion",
    "inertia",
    "n_iter",
    "converged",
)
_STATS_ARRAYS = tuple(f.name for f in fields(QuantizeStats) if "NDArray" in str(f.type))
_STATS_SCALARS = tuple(f.name for f in fields(QuantizeStats) if f.name not in _STATS_ARRAYS)


def _flatten(result: QuantizeResult) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    arrays = {name: fetch(getattr(result, name), name).values for name in _RESULT_ARRAYS}
    history = [fetch(h, "distortion_history").values for h in result.distortion_history]
    arrays["distortion_history"] = np.concatenate([np.empty(0), *history])
    arrays["distortion_history_lengths"] = np.array([len(h) for h in history], np.int64)
    for name in _STATS_ARRAYS:
        arrays[f"stats.{name}"] = getattr(result.stats, name)
    metadata = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "ddkern": __version__,
        "stats": {name: getattr(result.stats, name) for name in _STATS_SCALARS},
    }
    if isinstance(result.random_state, int):
        metadata["random_state"] = result.random_state
    else:
        arrays["random_state"] = result.random_state
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata


def _unflatten(
    arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any], source: Path
) -> QuantizeResult:
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{source} does not hold a QuantizeResult")
    if metadata["format_version"] != _FORMAT_VERSION:
        raise ValueError(
            f"{source} has format version {metadata['format_version']}; "
            f"this ddkern reads version {_FORMAT_VERSION}"
        )
    ends = np.cumsum(arrays["distortion_history_lengths"])
    stats: dict[str, Any] = {**metadata["stats"]}
    for names in ("algorithm", "products"):
        stats[names] = tuple(stats[names])
    stats.update({name: arrays[f"stats.{name}"] for name in _STATS_ARRAYS})
    seed = metadata["random_state"] if "random_state" in metadata else arrays["random_state"]
    return QuantizeResult(
        **{name: arrays[name] for name in _RESULT_ARRAYS},
        distortion_history=tuple(np.split(arrays["distortion_history"], ends[:-1])),
        random_state=seed,
        stats=QuantizeStats(**stats),
    )


class _Npz:
    """numpy's archive; the metadata is a string array named ``metadata``."""

    @staticmethod
    def write(file: IO[bytes], arrays: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        members: dict[str, Any] = {**arrays, "metadata": np.array(json.dumps(metadata))}
        np.savez(file, **members)

    @staticmethod
    def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        import zipfile

        try:
            with zipfile.ZipFile(path):
                pass
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is not an .npz file: {error}") from error
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        metadata = arrays.pop("metadata", None)
        return arrays, {} if metadata is None else json.loads(metadata.item())


class _Safetensors:
    """The format of the package safetensors; the metadata is one entry of its header."""

    @staticmethod
    def write(file: IO[bytes], arrays: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        header = {"metadata": json.dumps(metadata)}
        file.write(_import_safetensors("safetensors.numpy").save(arrays, metadata=header))

    @staticmethod
    def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        safetensors = _import_safetensors("safetensors")
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                header = file.metadata() or {}
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is not a .safetensors file: {error}") from error
        return arrays, json.loads(header.get("metadata", "{}"))


def _import_safetensors(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            "files with the suffix .safetensors need the package safetensors "
            "(pip install safetensors); .npz needs nothing"
        ) from error


def _format_of(path: Path) -> type[_Npz | _Safetensors]:
    formats: dict[str, type[_Npz | _Safetensors]] = {
        ".npz": _Npz,
        ".safetensors": _Safetensors,
    }
    if path.suffix not in formats:
        raise ValueError(f"path={str(path)!r}; its suffix must be .npz or .safetensors")
    return formats[path.suffix]
