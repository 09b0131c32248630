# SPDX-License-Identifier: Apache-2.0
"""Rows in CPU memory that devices work on: a shard on each of them, the next one on its way.

A shard is a part of the rows that a device can hold twice. Every device takes the next shard that
nobody has, and while it works on that, the following one is copied: from the caller's memory, which
may be a file, through page-locked memory, so that neither the rows nor a copy of them need fit
anywhere as a whole. Which device a group comes to changes nothing of its result.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ddkern.arrays import HostArray
from ddkern.kmeans import device
from ddkern.kmeans.device_arrays import DeviceArray, lack_of_memory, torch_dtype
from ddkern.kmeans.problem import Partition, Problem
from ddkern.progress import RecordProgress

__all__ = ["Shard", "fit", "row_numbers", "seed", "split_rows", "work_on"]

# Copies overlap with work from the second shard on, and devices that are done help the others.
_SHARDS_A_DEVICE = 4
# Unless that makes shards so small that a device is not kept busy by one.
_LEAST_BYTES = 256 << 20
# Two blocks of page-locked memory a device, which the driver is slow to give.
_STAGING_BYTES = 32 << 20
_SECONDS_BETWEEN_LOOKS = 0.1  # at what the devices have done


class Shard(NamedTuple):
    """Some rows, in the order of the partition, and the groups that they belong to."""

    rows: slice
    groups: slice
    alone: bool  # so large that no other one is copied meanwhile


# What is done with a shard: its number, itself, its rows on a device, and what reports groups done.
Work: TypeAlias = Callable[[int, Shard, Problem, RecordProgress], None]
# The number of a shard, and its rows as soon as they are there.
_Coming: TypeAlias = "tuple[int, Future[DeviceArray]]"


# ------------------------------------------------------------------------------------ what it does


def fit(
    problem: Problem, devices: Sequence[Any], max_memory: Any, **arguments: Any
) -> dict[str, Any]:
    """``_core.fit``, on devices."""
    k, init_centroids = arguments["k"], arguments.pop("init_centroids")
    progress = arguments.pop("progress")
    ends = np.cumsum(k)
    centroids = np.empty((int(ends[-1]), problem.n_features), problem.x.point_dtype)
    mass = np.empty(len(centroids), np.float64)
    assignment = np.empty(problem.n_rows, np.int64)
    shards, budget = _split_groups(problem, k, devices, max_memory)
    found: list[Any] = [None] * len(shards)

    def work(number: int, shard: Shard, part: Problem, report: RecordProgress) -> None:
        own = slice(int(ends[shard.groups.start] - k[shard.groups.start]), ends[shard.groups][-1])
        start = None if init_centroids is None else part.x.native(init_centroids[own])
        fitted = device.fit(
            part,
            max_memory=budget,
            init_centroids=start,
            **_of_groups(arguments, problem, shard),
            progress=report,
        )
        centroids[own] = fitted.pop("centroids").cpu().numpy()
        mass[own] = fitted.pop("mass").cpu().numpy()
        assignment[row_numbers(problem, shard)] = fitted.pop("assignment").cpu().numpy()
        found[number] = fitted

    work_on(problem, devices, shards, work, progress)
    return {**_joined(found), "centroids": centroids, "mass": mass, "assignment": assignment}


def seed(
    problem: Problem, devices: Sequence[Any], max_memory: Any, **arguments: Any
) -> dict[str, Any]:
    """``_core.seed``, on devices."""
    progress = arguments.pop("progress")
    shards, budget = _split_groups(problem, arguments["k"], devices, max_memory)
    found: list[Any] = [None] * len(shards)

    def work(number: int, shard: Shard, part: Problem, report: RecordProgress) -> None:
        own = _of_groups(arguments, problem, shard)
        seeded = device.seed(part, max_memory=budget, **own, progress=report)
        places = seeded["rows"].cpu().numpy() + shard.rows.start
        order = problem.partition.order
        found[number] = {**seeded, "rows": places if order is None else order[places]}

    work_on(problem, devices, shards, work, progress)
    seeded: dict[str, Any] = _joined(found)
    return seeded


def _of_groups(arguments: dict[str, Any], problem: Problem, shard: Shard) -> dict[str, Any]:
    """Those of the arguments of a fit that concern the groups of a shard."""
    own = {**arguments}
    for name in ("k", "group_ids", "seeds"):
        own[name] = own[name][shard.groups]
    if own["sample_weight"] is not None:
        own["sample_weight"] = own["sample_weight"][row_numbers(problem, shard)]
    return own


def _joined(found: list[Any]) -> Any:
    """What the module says of each shard, put together."""
    first = found[0]
    if isinstance(first, dict):
        return {name: _joined([one[name] for one in found]) for name in first}
    if isinstance(first, np.ndarray):
        return np.concatenate(found)
    if isinstance(first, list):
        return [item for one in found for item in one]
    return ", ".join(dict.fromkeys(found)) if isinstance(first, str) else first


# ----------------------------------------------------------------------------------------- shards


def row_numbers(problem: Problem, shard: Shard) -> Any:
    """Where the rows of a shard lie among the caller's: a slice or row numbers."""
    order = problem.partition.order
    return shard.rows if order is None else order[shard.rows]


def _row_bytes(x: HostArray, n_features: int) -> int:
    """What a row takes on a device: twice as it is, and once more if it has to be converted."""
    raw, point = x.values.dtype.itemsize, x.point_dtype
    as_it_is = not x.bfloat16 and x.values.dtype == point
    return n_features * (2 * raw + (0 if as_it_is else point.itemsize))


def _halves(devices: Sequence[Any], max_memory: Any) -> tuple[int, int]:
    """Bytes of a device for shards, and for the work on them."""
    budget = min(device.workspace_bytes(place, max_memory) for place in devices)
    return budget // 2, max(1, budget // 2)


def _target_bytes(whole: int, n_devices: int, limit: int) -> int:
    """How large shards should be, of ``whole`` bytes in all and at most ``limit`` each."""
    return min(limit, max(_LEAST_BYTES, whole // (_SHARDS_A_DEVICE * n_devices)))


def _split_groups(
    problem: Problem, k: NDArray[np.int64], devices: Sequence[Any], max_memory: Any
) -> tuple[list[Shard], int]:
    """Shards of whole groups, and what the work on one may take."""
    x, offsets = problem.x, problem.partition.offsets
    assert isinstance(x, HostArray)  # noqa: S101
    limit, for_work = _halves(devices, max_memory)
    per_row = _row_bytes(x, problem.n_features) + 8
    per_centroid = problem.n_features * x.point_dtype.itemsize + 8
    size = problem.partition.counts * per_row + k * per_centroid
    target = _target_bytes(int(size.sum()), len(devices), limit)
    shards, begin, held = [], 0, 0
    for end in range(1, len(size) + 1):
        held += int(size[end - 1])
        if end == len(size) or held + int(size[end]) > target:
            rows = slice(int(offsets[begin]), int(offsets[end]))
            shards.append(Shard(rows, slice(begin, end), held > limit))
            begin, held = end, 0
    return shards, for_work


def split_rows(
    problem: Problem, devices: Sequence[Any], bytes_beside: int, max_memory: Any
) -> tuple[list[Shard], int]:
    """Shards of any rows, for work that has no need of whole groups, and what that may take.

    ``bytes_beside`` is what it keeps on the device for every row, beside the rows themselves.
    """
    x, offsets = problem.x, problem.partition.offsets
    assert isinstance(x, HostArray)  # noqa: S101
    limit, for_work = _halves(devices, max_memory)
    per_row = _row_bytes(x, problem.n_features) + bytes_beside
    step = max(1, _target_bytes(problem.n_rows * per_row, len(devices), limit) // per_row)
    shards = []
    for begin in range(0, problem.n_rows, step):
        end = min(begin + step, problem.n_rows)
        first = int(np.searchsorted(offsets, begin, side="right")) - 1
        last = int(np.searchsorted(offsets, end, side="left"))
        shards.append(Shard(slice(begin, end), slice(first, last), alone=False))
    return shards, for_work


# ---------------------------------------------------------------------------------------- devices


def work_on(
    problem: Problem,
    devices: Sequence[Any],
    shards: Sequence[Shard],
    work: Work,
    progress: RecordProgress | None,
) -> None:
    """Call ``work`` for every shard in a thread for each device, on torch's current stream there.

    Raises
    ------
    Exception
        What ``work`` raised for the first of the shards that it did so for, the same in every run.
        Rows in its message are named as the caller's.
    """
    run = _Run(problem, shards, work)
    began_at = time.monotonic()
    with ThreadPoolExecutor(len(devices), "ddkern-device") as threads:
        try:  # around the start as well, since leaving the pool waits for all that has begun
            serving: set[Future[None]] = {threads.submit(run.serve, place) for place in devices}
            while serving:
                ended, serving = wait(serving, _SECONDS_BETWEEN_LOOKS)
                for future in ended:
                    future.result()
                if progress is not None:
                    progress(run.n_done, problem.n_groups, time.monotonic() - began_at)
        except BaseException:
            run.stop()
            raise
    run.raise_failure()


class _StoppedError(Exception):
    """Nobody waits for what is being done any more."""


class _Run:
    """The shards that nobody has taken, and what has become of the others."""

    def __init__(self, problem: Problem, shards: Sequence[Shard], work: Work) -> None:
        self._problem, self._shards, self._work = problem, shards, work
        self._waiting = deque(range(len(shards)))
        self._done = [0] * len(shards)
        self._failures: dict[int, BaseException] = {}
        self._stopped = False
        self._lock = threading.Lock()

    @property
    def n_done(self) -> int:
        """Groups done, of shards that are made of whole groups."""
        return sum(self._done)

    def stop(self) -> None:
        """End what is being done, soon."""
        self._stopped = True

    def raise_failure(self) -> None:
        """Raise what was raised for the first shard that failed."""
        if self._failures:
            raise self._failures[min(self._failures)]

    def serve(self, place: Any) -> None:
        """Work on shards, on one device, until none is left."""
        lane = _Lane(self._problem, place, self._check)
        with lane.working(), ThreadPoolExecutor(1, "ddkern-copy") as copying:

            def take(beside: int | None = None) -> list[_Coming]:
                number = self._take(beside)
                if number is None:
                    return []
                return [(number, copying.submit(lane.copy, number, self._shards[number]))]

            coming = take()
            while coming:
                # Out of the list, so that nothing holds the rows of a shard after the work on it.
                following = self._work_on(*coming.pop(), take)
                coming = following or take()

    def _work_on(
        self, number: int, rows: Future[DeviceArray], take: Callable[[int], list[_Coming]]
    ) -> list[_Coming]:
        """Work on a shard, and see to it that the next one comes meanwhile; return that, if any."""
        coming: list[_Coming] = []
        with self._failing(number):
            part = self._part(self._shards[number], rows.result())
            self._check(number)
            coming = take(number)
            self._work(number, self._shards[number], part, self._reporter(number))
            self._done[number] = self._own_groups(number)
        return coming

    def _take(self, beside: int | None = None) -> int | None:
        with self._lock:
            if self._stopped or self._failures or not self._waiting:
                return None
            first = self._waiting[0]
            if beside is not None and (self._shards[first].alone or self._shards[beside].alone):
                return None
            return self._waiting.popleft()

    @contextlib.contextmanager
    def _failing(self, number: int) -> Iterator[None]:
        try:
            yield
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised by raise_failure()
            error = self._in_rows_of_the_caller(error, self._shards[number])
            with self._lock:
                self._failures[number] = error

    def _check(self, number: int) -> None:
        """Stop if nobody waits for a shard: only those before one that failed still count."""
        with self._lock:
            needless = self._stopped or number > min(self._failures, default=number)
        if needless:
            raise _StoppedError

    def _reporter(self, number: int) -> RecordProgress:
        def report(done: int, total: int, seconds: float, note: str = "") -> None:
            del total, seconds, note
            self._check(number)
            self._done[number] = min(done, self._own_groups(number))

        return report

    def _own_groups(self, number: int) -> int:
        groups = self._shards[number].groups
        return int(groups.stop - groups.start)

    def _part(self, shard: Shard, rows: DeviceArray) -> Problem:
        whole = self._problem.partition
        offsets = whole.offsets[shard.groups.start : shard.groups.stop + 1]
        offsets = offsets.clip(shard.rows.start, shard.rows.stop) - shard.rows.start
        partition = Partition(whole.ids[shard.groups], None, offsets)
        return Problem(rows, None, self._problem.feature_shape, partition)

    def _in_rows_of_the_caller(self, error: BaseException, shard: Shard) -> BaseException:
        if not isinstance(error, ValueError):
            return error
        order = self._problem.partition.order

        def rename(found: re.Match[str]) -> str:
            place = shard.rows.start + int(found[1])
            return f"in row {place if order is None else order[place]}"

        return ValueError(re.sub(r"\bin row (\d+)", rename, str(error)))


@dataclass(slots=True)
class _Block:
    """Page-locked memory, and when the last copy out of it has ended."""

    memory: Any
    copied: Any


class _Lane:
    """The way of rows to one device."""

    def __init__(self, problem: Problem, place: Any, check: Callable[[int], None]) -> None:
        import torch

        x = problem.x
        assert isinstance(x, HostArray)  # noqa: S101
        self._problem, self._place, self._check = problem, place, check
        self._row_bytes = problem.n_features * x.values.dtype.itemsize
        self._dtype = torch_dtype("bfloat16" if x.bfloat16 else x.values.dtype)
        self._cuda = torch.cuda if place.type == "cuda" else None
        rows = max(1, min(problem.n_rows, _STAGING_BYTES // self._row_bytes))
        self._rows_a_block = rows
        self._blocks = []
        with self._on_device():
            for _ in range(2):
                memory = torch.empty(
                    rows * self._row_bytes, dtype=torch.uint8, pin_memory=self._cuda is not None
                )
                self._blocks.append(_Block(memory, self._cuda and self._cuda.Event()))
            self._stream = self._cuda and self._cuda.Stream()
            self._work_stream = self._cuda and self._cuda.Stream()

    def working(self) -> contextlib.AbstractContextManager[None]:
        """Make this the current device, and its stream for work the current one."""
        return self._on_device(self._work_stream)

    @contextlib.contextmanager
    def _on_device(self, stream: Any = None) -> Iterator[None]:
        if self._cuda is None:
            yield
            return
        with self._cuda.device(self._place), self._cuda.stream(stream):
            yield

    def copy(self, number: int, shard: Shard) -> DeviceArray:
        """The rows of a shard on the device, with all that was copied there in place."""
        import torch

        shape = (shard.rows.stop - shard.rows.start, self._problem.n_features)
        with self._on_device(self._stream):
            with lack_of_memory():
                rows = torch.empty(shape, dtype=self._dtype, device=self._place)
            for turn, begin in enumerate(range(0, shape[0], self._rows_a_block)):
                self._check(number)
                end = min(begin + self._rows_a_block, shape[0])
                block = self._blocks[turn % 2]
                if block.copied is not None:
                    block.copied.synchronize()
                memory = block.memory[: (end - begin) * self._row_bytes]
                place = slice(shard.rows.start + begin, shard.rows.start + end)
                _gather(self._problem, place, memory.numpy())
                rows[begin:end].copy_(
                    memory.view(self._dtype).view(end - begin, -1), non_blocking=True
                )
                if block.copied is not None:
                    block.copied.record()
            if self._stream is not None:
                self._stream.synchronize()
        return DeviceArray(rows, lambda tensor: tensor)


def _gather(problem: Problem, rows: slice, out: NDArray[np.uint8]) -> None:
    """Copy rows, given by their places in the order of the partition, to one after another."""
    assert isinstance(problem.x, HostArray)  # noqa: S101
    values, order = problem.x.values, problem.partition.order
    target = out.view(values.dtype)
    if problem.batch is not None:
        items = target.reshape((rows.stop - rows.start, *values.shape[2:]))
        per_item = values.shape[1]
        at = rows.start
        while at < rows.stop:
            item, row = divmod(at, per_item)
            end = min(rows.stop, at - row + per_item)
            items[at - rows.start : end - rows.start] = values[item, row : row + end - at]
            at = end
        return
    target = target.reshape((rows.stop - rows.start, *values.shape[1:]))
    if order is None:
        target[...] = values[rows]
    elif values.flags.c_contiguous:
        # Row numbers are valid; to check them again, numpy would copy once more.
        np.take(values, order[rows], axis=0, out=target, mode="clip")
    else:
        target[...] = values[order[rows]]
