# SPDX-License-Identifier: Apache-2.0
"""Problems for the quantizer on a device, and a stand-in for its extension module.

The same list runs through `ddkern._cuda` on a GPU, through its kernels compiled for the host, and
through `HostModule`, which only has the interface.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ddkern
from ddkern import _core
from helpers.bits import assert_same_array_bits, assert_same_bits
from helpers.problems import FAMILIES, FEATURES, ROWS, cast, one_step, problems

SEED = 7

# Which problems of each family of helpers/problems.py: of few and many rows and features.
_OF_EACH_FAMILY = (13, 27, 38, 51, 65, 76)


@dataclass(frozen=True)
class Case:
    """Rows, and what `ddkern.quantize` is asked to do with them.

    Attributes
    ----------
    x : array
        For bfloat16, float32 values that bfloat16 holds; the points are float32 either way, so
        that numpy can have them for the comparison.
    k : int or array
    options : dict
        Of `ddkern.quantize`.
    dtype : str
        What torch calls the type that the rows are passed in.
    """

    x: NDArray[Any]
    k: Any
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"

    def rows(self, device: str) -> Any:
        """Return the rows as a tensor on a device."""
        import torch

        return torch.tensor(self.x).to(getattr(torch, self.dtype)).to(device)

    def quantize(self, device: str, **variant: Any) -> ddkern.QuantizeResult:
        """Return the result for rows on a device."""
        options = {"random_state": SEED, **self.options, **variant}
        return ddkern.quantize(self.rows(device), self.k, **options)

    def seed(self, device: str, **variant: Any) -> ddkern.SeedResult:
        """Return the seeds for rows on a device."""
        return ddkern.seed_centroids(self.rows(device), self.k, **self.seed_options, **variant)

    @property
    def seed_options(self) -> dict[str, Any]:
        """What of the options `ddkern.seed_centroids` takes."""
        shared = ("groups", "batch_dims", "sample_weight", "init", "random_state")
        own = {name: value for name, value in self.options.items() if name in shared}
        return {"random_state": SEED, **own}

    @property
    def draws(self) -> bool:
        """Whether the start is drawn rather than given."""
        return isinstance(self.options.get("init", ""), str)


def _blobs(seed: int, n: int, d: int, centres: int = 6, dtype: str = "float32") -> NDArray[Any]:
    rng = np.random.default_rng([90, seed])
    means = 2 * rng.normal(size=(centres, d))
    return cast(means[rng.integers(0, centres, n)] + rng.normal(size=(n, d)), dtype)


def _copies(seed: int, n: int, d: int, distinct: int) -> NDArray[Any]:
    return _blobs(seed, distinct, d)[np.random.default_rng(seed).integers(0, distinct, n)]


def _uneven(seed: int, n: int) -> NDArray[np.float64]:
    """Weights over many powers of ten, a tenth of them 0."""
    rng = np.random.default_rng([91, seed])
    return 10.0 ** rng.uniform(-6, 6, n) * (rng.random(n) > 0.1)


def _ragged(n: int, shuffled: bool) -> NDArray[np.int64]:
    """Ids of groups of 1, 2, 40, 33, 5 and the remaining rows."""
    sizes = [1, 2, 40, 33, 5]
    ids = np.repeat([-4, 0, 3, 1 << 40, 8, 9], [*sizes, n - sum(sizes)])
    return np.random.default_rng(92).permutation(ids) if shuffled else ids


def _far_start(x: NDArray[Any], k: int) -> NDArray[Any]:
    """Centroids of which all but the first are so far away that their cells are empty."""
    start = np.repeat(x[:1], k, axis=0)
    start[1:] += 1e3 * np.arange(1, k, dtype=x.dtype)[:, None]
    return start


@cache
def cases() -> dict[str, Case]:
    """Return problems by name; none has more than 400 rows or 200 features."""
    small, tall, wide = _blobs(1, 90, 5), _blobs(2, 400, 3), _blobs(3, 60, 200)
    giant = np.where(np.arange(90)[:, None] == 17, 1e9 * small, small).astype(np.float32)
    ragged_k = {-4: 1, 0: 2, 3: 7, 1 << 40: 3, 8: 5, 9: 13}
    of_type = {
        "float64": _blobs(4, 90, 12, dtype="float64"),
        "float16": _blobs(5, 90, 12, dtype="float16"),
        "bfloat16": _blobs(6, 90, 12, dtype="bfloat16"),
        "uint8": _blobs(7, 90, 12, dtype="uint8"),
        "int8": _blobs(8, 90, 12, dtype="uint8").view(np.int8),
        "int16": _blobs(9, 90, 12, dtype="int32").astype(np.int16),
        "int32": _blobs(10, 90, 12, dtype="int32"),
        "int64": _blobs(11, 90, 12, dtype="int32").astype(np.int64) << 20,
        "bool": _blobs(12, 90, 12) > 0,
    }
    return {
        "one-row": Case(_blobs(20, 1, 3), 1),
        "one-centroid": Case(small, 1),
        "small": Case(small, 7),
        "tall": Case(tall, 12),
        "wide": Case(wide, 9),
        "as-many-as-rows": Case(_blobs(21, 33, 4), 33),
        "one-feature": Case(_blobs(22, 200, 1), 13),
        "scalar-points": Case(_blobs(23, 70, 1)[:, 0], 4),
        "images": Case(_blobs(24, 60, 48).reshape(60, 3, 4, 4), 5),
        **{
            f"edge-{n}x{d}": Case(_blobs(30 + n, n, d), min(n, 11))
            for n, d in ((31, 15), (32, 16), (33, 17), (63, 31), (64, 32), (65, 33), (129, 129))
        },
        "many-centroids": Case(_blobs(25, 300, 40), 100),
        # Rows too long to stay in shared memory, for tiles of every width, and a multiple of 64.
        **{
            f"long-{k}": Case(_blobs(40 + k, n, d), k, {"max_iter": 3})
            for k, n, d in ((5, 140, 577), (20, 150, 640), (50, 130, 576), (90, 131, 600))
        },
        # To draw 300 seeds takes the stand-in a quarter of a minute.
        "long-300": Case(
            _blobs(41, 320, 520), 300, {"init": _blobs(41, 320, 520)[20:], "max_iter": 2}
        ),
        "long-weighted": Case(
            _blobs(42, 140, 640), 6, {"sample_weight": _uneven(6, 140), "max_iter": 4}
        ),
        "long-array": Case(
            _blobs(43, 140, 640), 6, {"init": _blobs(43, 140, 640)[:6], "max_iter": 4}
        ),
        "aligned": Case(_blobs(44, 200, 128), 17, {"tol": 0.0}),
        "float64-long": Case(_blobs(45, 70, 640, dtype="float64"), 5, {"max_iter": 3}, "float64"),
        "strict": Case(tall, 8, {"tol": 0.0}),
        # A millionth less would take another iteration: the variance has to be right.
        "just-converged": Case(tall, 40, {"tol": 0.01235284}),
        "one-iteration": Case(tall, 8, {"max_iter": 1}),
        "random": Case(small, 9, {"init": "random"}),
        "restarts": Case(small, 7, {"n_init": 4}),
        "random-restarts": Case(small, 7, {"n_init": 3, "init": "random"}),
        "array": Case(small, 6, {"init": small[10:16] + np.float32(0.25)}),
        "repair": Case(small, 6, {"init": _far_start(small, 6)}),
        "repair-past-the-end": Case(small, 6, {"init": _far_start(small, 6), "max_iter": 1}),
        "duplicates": Case(_copies(13, 120, 6, 25), 20),
        "too-few-distinct": Case(_copies(14, 50, 6, 4), 9),
        "all-equal": Case(np.full((40, 3), 0.1, np.float32), 5),
        "weighted": Case(small, 7, {"sample_weight": _uneven(1, 90)}),
        "weighted-random": Case(small, 7, {"sample_weight": _uneven(2, 90), "init": "random"}),
        "weighted-restarts": Case(small, 7, {"sample_weight": _uneven(3, 90), "n_init": 3}),
        "weighted-repair": Case(
            small, 6, {"sample_weight": _uneven(4, 90), "init": _far_start(small, 6)}
        ),
        "weightless-giant": Case(giant, 7, {"sample_weight": np.where(np.arange(90) == 17, 0, 1)}),
        "integer-weights": Case(small, 7, {"sample_weight": np.arange(90) % 5}),
        "ragged": Case(_blobs(26, 200, 19), ragged_k, {"groups": _ragged(200, shuffled=False)}),
        "ragged-shuffled": Case(
            _blobs(26, 200, 19), ragged_k, {"groups": _ragged(200, shuffled=True)}
        ),
        "ragged-weighted": Case(
            _blobs(27, 200, 19),
            1,
            {
                "groups": _ragged(200, shuffled=True),
                "sample_weight": 1 + np.arange(200.0) % 3,
                "n_init": 2,
            },
        ),
        "batch": Case(_blobs(28, 120, 10).reshape(4, 30, 10), 3, {"batch_dims": 1}),
        "batch-seeds": Case(
            _blobs(28, 120, 10).reshape(4, 30, 10),
            3,
            {"batch_dims": 1, "random_state": np.array([3, 2**64 - 1, 0, 5], np.uint64)},
        ),
        "offset": Case((1e4 + _blobs(29, 90, 8, dtype="float64")).astype(np.float32), 7),
        "huge": Case((3e37 * _blobs(30, 90, 8, dtype="float64")).astype(np.float32), 7),
        "tiny": Case((1e-40 * _blobs(31, 90, 8, dtype="float64")).astype(np.float32), 7),
        **{name: Case(x, 7, {}, name) for name, x in of_type.items()},
        "float64-weighted": Case(
            of_type["float64"], 7, {"sample_weight": _uneven(5, 90)}, "float64"
        ),
        "float64-array": Case(
            of_type["float64"], 4, {"init": of_type["float64"][:4] + 0.25}, "float64"
        ),
    }


@cache
def tall_cases() -> dict[str, Case]:
    """Return problems with more tiles of rows than a block has threads, for streaming alone."""
    n = 33_000
    groups = np.where(np.arange(n) % 400 == 7, 2, 5)
    blobs = np.float32(2e-3) * np.round(500 * _blobs(46, n, 2))
    return {
        "plain": Case(blobs, 3, {"max_iter": 2}),
        "weighted": Case(blobs, 4, {"max_iter": 1, "sample_weight": _uneven(8, n)}),
        "random": Case(blobs, 4, {"max_iter": 1, "init": "random"}),
        "second-group": Case(blobs, {2: 2, 5: 3}, {"max_iter": 1, "groups": groups}),
        "repair": Case(blobs, 3, {"init": _far_start(blobs, 3), "max_iter": 1}),
    }


@cache
def tall_seed_cases() -> dict[str, Case]:
    """Return problems of as many tiles, with fewer values than seeds."""
    values = np.round(_blobs(46, 33_000, 1) / 2)
    return {
        "few-values": Case(values, 12),
        "few-values-random": Case(values, 12, {"init": "random"}),
        # The seed is row 31104: the first of a tile that follows another one of the same thread.
        "first-of-a-tile": Case(values, 1, {"init": "random", "random_state": 174}),
        "few-values-weighted": Case(values, 12, {"sample_weight": _uneven(8, len(values))}),
    }


@cache
def family_cases(dtype: str) -> dict[str, Case]:
    """Return a fixed part of the problems of every family, each with a start of its own."""
    per_family = len(ROWS) * len(FEATURES)
    found = {}
    for family in range(len(FAMILIES)):
        for place in _OF_EACH_FAMILY:
            number = family * per_family + place
            problem = problems(dtype)[number]
            k = min(len(problem.x), len(problem.centroids))
            init = ("k-means++", "random", problem.centroids[:k])[number % 3]
            options = {"init": init, "max_iter": 1 + number % 4, "random_state": number}
            found[problem.name] = Case(problem.x, k, options, dtype)
    return found


def assert_same_as_on_the_cpu(case: Case, device: str, **variant: Any) -> None:
    """Fail unless everything that is asked of a device has the bits of the CPU's answer."""
    here = case.quantize(device, **variant)
    there = on_the_cpu(case)
    assert_same_bits(_on_the_host(here), there)
    assert here.stats.restart.tolist() == there.stats.restart.tolist()
    assert here.stats.cells_reseeded.tolist() == there.stats.cells_reseeded.tolist()
    assert here.stats.empty_cells.tolist() == there.stats.empty_cells.tolist()


def assert_same_seeds_as_on_the_cpu(case: Case, device: str, **variant: Any) -> None:
    """Fail unless the seeds that are drawn on a device have the bits of the CPU's."""
    here = case.seed(device, **variant)
    there = ddkern.seed_centroids(case.x, case.k, **case.seed_options)
    for name in ("indices", "centroids", "groups", "potential"):
        assert_same_array_bits(getattr(here, name).cpu(), getattr(there, name), name)


def assert_same_assignment_as_on_the_cpu(case: Case, device: str) -> None:
    """Fail unless `ddkern.assign` on a device has the bits of the CPU's answer."""
    book = on_the_cpu(case)
    options: dict[str, Any] = {"return_distance": True}
    if "groups" in case.options:
        # In reverse, so that rows of the caller's centroids are not their places in the group.
        options.update(groups=case.options["groups"], centroid_groups=book.groups[::-1])
    if "batch_dims" in case.options:
        options["batch_dims"] = 1
    centroids = book.centroids[::-1] if "groups" in case.options else book.centroids
    here = ddkern.assign(case.rows(device), centroids, **options)
    there = ddkern.assign(case.x, centroids, **options)
    for name, a, e in zip(("assignment", "distance"), here, there, strict=True):
        assert str(a.device).startswith(device)
        assert_same_array_bits(a.cpu(), e, name)


@dataclass(frozen=True)
class FewCase:
    """Rows and centroids, and how many of these `ddkern.assign` is asked for.

    Attributes
    ----------
    x : array
        As in `Case`.
    centroids : array
    n_nearest : int
    options : dict
        Of `ddkern.assign`.
    dtype : str
        What torch calls the type that the rows are passed in.
    """

    x: NDArray[Any]
    centroids: NDArray[Any]
    n_nearest: int
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"


@cache
def few_cases() -> dict[str, FewCase]:
    """Return problems by name; with several groups, every group has its own number of centroids."""
    book, tall = _blobs(51, 40, 7), _blobs(52, 150, 7)
    copies = _copies(53, 24, 5, 6)
    line = _blobs(54, 90, 1)
    integers = np.random.default_rng(61).integers(0, 3, (110, 16)).astype(np.uint8)
    wide = _blobs(55, 50, 7, dtype="float64")
    # Columns that differ by a step of float64, and so in their distances by less than its sums see.
    twins = one_step(wide[:12], np.ones((12, 7), np.int64), "float64")
    ids, owners = _ragged(150, shuffled=True), np.repeat([-4, 0, 3, 1 << 40, 8, 9], range(3, 9))
    grouped = {"groups": ids, "centroid_groups": np.random.default_rng(56).permutation(owners)}
    far = np.concatenate([book[:5], 1e30 * book[5:9], book[9:12]])
    # Differences that leave the range of float64's squares, in either direction.
    apart = np.concatenate([wide[:4], 1e-160 * wide[4:8], 1e200 * wide[8:12], 1e307 * wide[12:15]])
    return {
        "two": FewCase(tall, book, 2),
        "three": FewCase(tall, book, 3),
        "all": FewCase(tall, book, 40),
        "all-but-one": FewCase(tall[:60], book, 39),
        "many": FewCase(tall[:60], _blobs(57, 300, 7), 100),
        "fewer-rows": FewCase(tall[:1], book, 5),
        "more-rows-than-warps": FewCase(_blobs(58, 8400, 1), line[:3], 2),
        "line": FewCase(line, line[::2], 7),
        "long": FewCase(_blobs(59, 40, 640), _blobs(60, 20, 640), 4),
        # Many rows with more columns as near as the last on the list than it has room for.
        "grid": FewCase(integers[:60], integers[60:], 6, {}, "uint8"),
        "copies": FewCase(copies, np.concatenate([copies, copies]), 11),
        "one-value": FewCase(np.full((20, 3), 0.1, np.float32), np.full((70, 3), 0.3, "f4"), 35),
        "far": FewCase(tall, far, 9),
        "huge": FewCase(3e37 * tall, 3e37 * book, 6),
        "tiny": FewCase(np.float32(1e-40) * tall, np.float32(1e-40) * book, 6),
        "steps": FewCase(wide, np.concatenate([wide[:12], twins]), 13, {}, "float64"),
        "float64-apart": FewCase(wide, apart, 14, {}, "float64"),
        "float64-huge": FewCase(1e200 * wide, apart, 15, {}, "float64"),
        "upcast": FewCase(tall, book + 1e-12, 4, {"max_memory": 1 << 18}),
        "upcast-groups": FewCase(tall, book[:33] + 1e-12, 3, {**grouped, "max_memory": 1 << 18}),
        "groups": FewCase(tall, book[:33], 2, grouped),
        "groups-all": FewCase(tall, book[:33], 3, grouped),
        "groups-one-by-one": FewCase(tall, book[:33], 3, {**grouped, "max_memory": 3 << 15}),
        "batch": FewCase(tall.reshape(3, 50, 7), book[:36].reshape(3, 12, 7), 5, {"batch_dims": 1}),
    }


@cache
def few_family_cases(dtype: str) -> dict[str, FewCase]:
    """Return a fixed part of the problems of every family, each for 2, 3 or all centroids."""
    per_family = len(ROWS) * len(FEATURES)
    found = {}
    for number in range(7, len(FAMILIES) * per_family, 13):
        problem = problems(dtype)[number]
        k = len(problem.centroids)
        n_nearest = min((2, 3, k)[number % 3], k)
        case = FewCase(problem.x, problem.centroids, n_nearest, {}, dtype)
        found[f"{problem.name}-m{n_nearest}"] = case
    return found


def assert_same_few_as_on_the_cpu(case: FewCase, device: str) -> None:
    """Fail unless `ddkern.assign` on a device has the bits of the CPU's answer."""
    import torch

    rows = torch.tensor(case.x).to(getattr(torch, case.dtype)).to(device)
    options = {"n_nearest": case.n_nearest, **case.options}
    there = ddkern.assign(case.x, case.centroids, return_distance=True, **options)
    here = ddkern.assign(rows, case.centroids, return_distance=True, **options)
    for name, a, e in zip(("assignment", "distance"), here, there, strict=True):
        assert str(a.device).startswith(device)
        assert_same_array_bits(a.cpu(), e, name)


def assert_for_all(named: dict[str, Any], check: Callable[[Any], None]) -> None:
    """Fail with the names of all cases that `check` fails for or that raise a ValueError."""
    failures = [failure for item in named.items() if (failure := _failure(*item, check))]
    listed = "\n".join(failures[:8])
    assert not failures, f"{len(failures)} of {len(named)} problems are wrong:\n{listed}"


def _failure(name: str, case: Any, check: Callable[[Any], None]) -> str:
    try:
        check(case)
    except (AssertionError, ValueError) as error:
        return f"{name}: {error}"
    return ""


def on_the_cpu(case: Case) -> ddkern.QuantizeResult:
    """Return the result for rows of numpy, which always goes through the CPU's kernels."""
    options = {"random_state": SEED, **case.options}
    return ddkern.quantize(case.x, case.k, **options)


def _on_the_host(result: ddkern.QuantizeResult) -> Any:
    class OnTheHost:
        def __getattr__(self, name: str) -> Any:
            value = getattr(result, name)
            return [v.cpu() for v in value] if isinstance(value, tuple) else value.cpu()

    return OnTheHost()


# --- The interface without a device ---------------------------------------------------------------


def at(address: int, shape: tuple[int, ...], dtype: Any, row_stride: int = 0) -> NDArray[Any]:
    """Return a view of memory; rows lie `row_stride` elements apart, or without gaps if it is 0."""
    dtype = np.dtype(dtype)
    stride = row_stride or (shape[1] if len(shape) == 2 else 1)
    count = (shape[0] - 1) * stride + (shape[1] if len(shape) == 2 else 1)
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    strides = (stride * dtype.itemsize, dtype.itemsize)[: len(shape)]
    return np.ndarray(shape, dtype, memory, strides=strides)


class HostModule:
    """The functions of `ddkern._cuda` on memory of the host, computed by `ddkern._core`.

    Attributes
    ----------
    calls : list of (name, arguments)
        Everything that was asked.
    during : callable
        Is given the arguments of each call before it is answered.
    """

    def __init__(self, during: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.during = during

    @property
    def last(self) -> dict[str, Any]:
        """The arguments of the last call."""
        return self.calls[-1][1]

    def fit(self, **arguments: Any) -> dict[str, Any]:
        a = self._begin("fit", arguments)
        shape, dtype = (int(a["k"].sum()), a["n_features"]), self._dtype(a)
        given = at(a["init_centroids"], shape, dtype) if a["init"] == "array" else None
        assert (a["init_centroids"] == 0) == (given is None)
        names = ("k", "group_ids", "seeds", "sample_weight", "init", "n_init", "max_iter", "tol")
        fitted = _core.fit(
            **self._shared(a),
            **{name: a[name] for name in (*names, "algorithm")},
            init_centroids=given,
        )
        at(a["centroids"], shape, dtype)[:] = fitted.pop("centroids")
        at(a["mass"], shape[:1], np.float64)[:] = fitted.pop("mass")
        at(a["assignment"], (a["n_rows"],), np.int64)[:] = fitted.pop("assignment")
        return {**fitted, "isa": "sm_00", "n_threads": 0}

    def seed(self, **arguments: Any) -> dict[str, Any]:
        a = self._begin("seed", arguments)
        names = ("k", "group_ids", "seeds", "sample_weight", "init", "algorithm")
        seeded = _core.seed(**self._shared(a), **{name: a[name] for name in names})
        at(a["rows"], seeded["rows"].shape, np.int64)[:] = seeded["rows"]
        return {"potential": seeded["potential"]}

    def assign(self, **arguments: Any) -> dict[str, Any]:
        a = self._begin("assign", arguments)
        centroids = at(a["centroids"], (int(a["k"].sum()), a["n_features"]), self._dtype(a))
        names = ("k", "n_nearest", "return_distance")
        found = _core.assign(
            **self._shared(a), **{name: a[name] for name in names}, centroids=centroids
        )
        shape = (a["n_rows"], a["n_nearest"])
        at(a["assignment"], shape, np.int64)[:] = found["assignment"]
        assert (a["distance"] != 0) == a["return_distance"]
        if a["distance"]:
            at(a["distance"], shape, np.float64)[:] = found["distance"]
        return {}

    def _begin(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((name, arguments))
        if self.during is not None:
            self.during(arguments)
        return arguments

    @staticmethod
    def _dtype(a: dict[str, Any]) -> Any:
        return np.float64 if a["float64"] else np.float32

    def _shared(self, a: dict[str, Any]) -> dict[str, Any]:
        shape = (a["n_rows"], a["n_features"])
        flat = a["row_stride"] == 0
        x = at(a["x"], (1, shape[1]) if flat else shape, self._dtype(a), a["row_stride"])
        return {
            "x": np.broadcast_to(x, shape),
            "bfloat16": False,
            "batch_dims": 0,
            "order": a["order"],
            "offsets": a["offsets"],
            "n_threads": 1,
            "max_memory": a["max_memory"],
            "progress": a["progress"],
        }
