# SPDX-License-Identifier: Apache-2.0
"""Rows in CPU memory that are brought to devices some groups at a time.

Devices are the CPU under several numbers, and the module for them a stand-in on host memory.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern.arrays import to_host
from ddkern.kmeans import device, shards
from helpers.bits import assert_same_array_bits, assert_same_bits
from helpers.device import SEED, HostModule, cases, on_the_cpu

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::ddkern.EmptyCellWarning"),
]

RNG = np.random.default_rng(8)
X = RNG.normal(size=(120, 6)).astype(np.float32)
GROUPS = np.repeat(np.arange(12), 10)
TWO = ["cpu:0", "cpu:1"]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostModule]:
    stand_in = HostModule()
    monkeypatch.setattr(shards, "_STAGING_BYTES", 1000)
    with device.use_module(stand_in):
        yield stand_in


def in_shards(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    """Make shards as small as half of `max_memory`, or as small as they may be of themselves."""
    monkeypatch.setattr(shards, "_LEAST_BYTES", n_bytes)


# --- The same answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases())
def test_quantize(module: HostModule, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    in_shards(monkeypatch, 1)
    monkeypatch.setattr(device, "see", to_host)  # tensors of the CPU lie in CPU memory here
    case = cases()[name]
    options = {"random_state": SEED, **case.options}
    here = ddkern.quantize(case.rows("cpu"), case.k, device=TWO, **options)
    there = on_the_cpu(case)
    assert isinstance(here.centroids, torch.Tensor)
    assert_same_bits(here, there)
    for field in ("restart", "cells_reseeded", "empty_cells", "rows_assigned"):
        assert_same_array_bits(getattr(here.stats, field), getattr(there.stats, field), field)
    assert here.stats.isa == "sm_00"
    assert len(here.stats.algorithm) == len(there.stats.algorithm)


@pytest.mark.parametrize("name", [name for name, case in cases().items() if case.draws])
def test_seed_centroids(module: HostModule, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    in_shards(monkeypatch, 1)
    case = cases()[name]
    here = ddkern.seed_centroids(case.x, case.k, device=TWO, **case.seed_options)
    there = ddkern.seed_centroids(case.x, case.k, **case.seed_options)
    for field in ("indices", "centroids", "groups", "potential"):
        assert_same_array_bits(getattr(here, field), getattr(there, field), field)


@pytest.mark.parametrize("wide", [False, True], ids=["in the rows' type", "in float64"])
@pytest.mark.parametrize("kind", ["one group", "ragged", "shuffled", "batch"])
def test_assign(module: HostModule, monkeypatch: pytest.MonkeyPatch, kind: str, wide: bool) -> None:
    in_shards(monkeypatch, 1)  # eight, of 15 rows, so that they cut groups
    ids = RNG.permutation(GROUPS) if kind == "shuffled" else GROUPS
    centroids = RNG.normal(size=(36, 6))
    if not wide:
        centroids = centroids.astype(np.float32)
    x, options = X, {}
    if kind == "batch":
        x, centroids, options = X.reshape(4, 30, 6), centroids.reshape(4, 9, 6), {"batch_dims": 1}
    elif kind != "one group":
        options = {"groups": ids, "centroid_groups": np.arange(36) % 12}
    here = ddkern.assign(x, centroids, return_distance=True, device=TWO, **options)
    there = ddkern.assign(x, centroids, return_distance=True, **options)
    for a, e in zip(here, there, strict=True):
        assert_same_array_bits(a, e, kind)
    assert len(module.calls) >= 8
    alone = ddkern.assign(x, centroids, device=TWO, **options)
    assert_same_array_bits(alone, there[0], kind)
    few = {"n_nearest": 3, "return_distance": True, **options}
    here, there = (ddkern.assign(x, centroids, device=d, **few) for d in (TWO, None))
    for a, e in zip(here, there, strict=True):
        assert_same_array_bits(a, e, kind)


def test_views_files_and_types(module: HostModule, tmp_path: Path) -> None:
    ids = RNG.permutation(GROUPS)
    np.save(tmp_path / "x.npy", X)
    wide = RNG.integers(0, 255, (120, 9), dtype=np.uint8)
    for x in (X[:, ::-1], np.asfortranarray(X), X[:, 1:4], wide[:, 2:], wide > 99, X.T.copy().T):
        for groups in (ids, GROUPS, None):
            here = ddkern.quantize(x, 3, groups=groups, random_state=1, device=TWO)
            assert_same_bits(here, ddkern.quantize(x, 3, groups=groups, random_state=1))
    items = X.reshape(6, 20, 6)[:, ::-1]
    here = ddkern.quantize(items, 3, batch_dims=1, random_state=1, device="cpu:1", max_memory=8000)
    assert_same_bits(here, ddkern.quantize(items, 3, batch_dims=1, random_state=1))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    here = ddkern.quantize(mapped, 3, groups=ids, random_state=1, device="cpu:1")
    assert_same_bits(here, ddkern.quantize(X, 3, groups=ids, random_state=1))


# --- Who gets what --------------------------------------------------------------------------------


def test_shards_are_whole_groups_within_the_budget(module: HostModule) -> None:
    # A row is 24 bytes twice and 8 beside it, a centroid 24 and 8: 624 bytes a group.
    assert len(X) // 12 * 56 + 2 * 32 == 624
    for budget, n_calls in ((2 * 624 * 12, 1), (2 * 624 * 12 - 1, 2), (2 * 624 * 3, 4), (10, 12)):
        module.calls.clear()
        q = ddkern.quantize(
            X, 2, groups=GROUPS, random_state=0, device=["cpu:0"], max_memory=budget
        )
        assert len(module.calls) == n_calls
        assert {a["max_memory"] for _, a in module.calls} == {budget // 2}
        assert_same_bits(q, ddkern.quantize(X, 2, groups=GROUPS, random_state=0))
    assert [a["group_ids"].tolist() for _, a in module.calls] == [[g] for g in range(12)]


def test_a_device_has_four_shards_where_they_are_large_enough(
    module: HostModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_shards(monkeypatch, 1)
    ddkern.quantize(X, 2, groups=GROUPS, device=["cpu:0"])
    assert len(module.calls) == 4
    module.calls.clear()
    ddkern.quantize(X, 2, groups=GROUPS, device=["cpu:0", "cpu:1", "cpu:2"])
    assert len(module.calls) == 12


def test_rows_are_copied_while_others_are_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second shard arrives while the first is worked on, the third not before the second."""
    copied: list[int] = []
    arrived = threading.Condition()
    genuine = shards._Lane.copy

    def copy(lane: Any, number: int, shard: Any) -> Any:
        rows = genuine(lane, number, shard)
        with arrived:
            copied.append(number)
            arrived.notify_all()
        return rows

    worked_on = iter(range(4))

    def during(arguments: dict[str, Any]) -> None:
        number = next(worked_on)
        with arrived:
            assert arrived.wait_for(lambda: len(copied) >= min(number + 2, 4), timeout=30)
        assert copied == list(range(min(number + 2, 4)))

    in_shards(monkeypatch, 1)
    monkeypatch.setattr(shards._Lane, "copy", copy)
    with device.use_module(HostModule(during)):
        ddkern.quantize(X, 2, groups=GROUPS, device=["cpu:0"])
    assert copied == [0, 1, 2, 3]


def test_a_group_too_large_for_two_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is copied while it is worked on, nor it while others are or lie there."""
    x, ids = np.concatenate((X, X)), np.repeat([0, 1, 2], [20, 200, 20])
    copied: list[weakref.ref[Any]] = []
    genuine = shards._Lane.copy

    def copy(*arguments: Any) -> Any:
        assert [tensor() for tensor in copied] == [None] * len(copied)
        rows = genuine(*arguments)
        copied.append(weakref.ref(rows.tensor))
        return rows

    seen: list[int] = []

    def during(arguments: dict[str, Any]) -> None:
        time.sleep(0.1)
        seen.append(len(copied))

    monkeypatch.setattr(shards._Lane, "copy", copy)
    with device.use_module(HostModule(during)):
        q = ddkern.quantize(
            x, 2, groups=ids, random_state=0, device=["cpu:0"], max_memory=2 * (20 * 56 + 64)
        )
    assert_same_bits(q, ddkern.quantize(x, 2, groups=ids, random_state=0))
    assert seen == [1, 2, 3]


def test_two_devices_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    in_shards(monkeypatch, 1)
    both = threading.Barrier(2, timeout=30)
    threads = set()

    def during(arguments: dict[str, Any]) -> None:
        threads.add(threading.get_ident())
        both.wait()

    with device.use_module(HostModule(during)):
        ddkern.quantize(X[:80], 2, groups=GROUPS[:80], device=TWO)
    assert len(threads) == 2


def test_every_device(module: HostModule, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.from_numpy(X)
    q = ddkern.quantize(X, 2, groups=GROUPS, random_state=0, device="all")
    assert isinstance(q.centroids, np.ndarray)
    assert len(module.calls) == 1
    # A tensor of the CPU lies on the stand-in's device already.
    for here in (torch.device("cpu"), "cpu"):
        found = ddkern.quantize(x, 2, groups=GROUPS, random_state=0, device=here)
        assert_same_array_bits(found.centroids, q.centroids, "centroids")


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffled", [False, True])
def test_bad_rows_are_named_as_the_callers(
    module: HostModule, monkeypatch: pytest.MonkeyPatch, shuffled: bool
) -> None:
    in_shards(monkeypatch, 1)
    ids = RNG.permutation(GROUPS) if shuffled else GROUPS
    order = np.argsort(ids, kind="stable")
    x = X.copy()
    # Of a late group and an early one: the early one is named in every run.
    x[order[[95, 34]], 2] = np.nan
    for _ in range(5):
        with pytest.raises(ValueError, match=rf"x holds NaN or infinity in row {order[34]};"):
            ddkern.quantize(x, 2, groups=ids, device=TWO)
    with pytest.raises(ValueError, match=rf"x holds NaN or infinity in row {order[34]};"):
        ddkern.quantize(x, 2, groups=ids)
    whole = np.zeros((4, 1), np.int64)
    whole[2] = (1 << 53) + 1
    with pytest.raises(ValueError, match="an integer beyond 2\\^53 in row 2;"):
        ddkern.quantize(whole, 1, groups=[0, 1, 2, 3], device=TWO)


def test_failures_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two at once that of the earlier groups is raised."""
    in_shards(monkeypatch, 1)
    both = threading.Barrier(2, timeout=30)

    def fail(arguments: dict[str, Any]) -> None:
        first = arguments["group_ids"][0]
        if both.wait() is not None and first == 0:
            time.sleep(0.1)
        raise RuntimeError(f"cudaErrorIllegalAddress {first}")

    with (
        device.use_module(HostModule(fail)),
        pytest.raises(ddkern.CudaError, match="cudaErrorIllegalAddress 0"),
    ):
        ddkern.quantize(X, 2, groups=GROUPS, device=TWO)


def test_a_failure_ends_later_work(monkeypatch: pytest.MonkeyPatch) -> None:
    in_shards(monkeypatch, 1)
    both = threading.Barrier(2, timeout=30)
    undisturbed = []

    def during(arguments: dict[str, Any]) -> None:
        both.wait()
        if arguments["group_ids"][0] == 0:
            raise RuntimeError("cudaErrorIllegalAddress")
        for _ in range(3000):
            arguments["progress"](0, 1, 0.0)
            time.sleep(0.01)
        undisturbed.append(arguments["group_ids"])

    with device.use_module(HostModule(during)), pytest.raises(ddkern.CudaError):
        ddkern.quantize(X, 2, groups=GROUPS, device=TWO)
    assert not undisturbed


def test_lack_of_memory(module: HostModule, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = torch.empty

    def empty(*args: Any, **options: Any) -> Any:
        if options.get("dtype") == torch.float32 and options.get("device") is not None:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return genuine(*args, **options)

    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(MemoryError, match="CUDA out of memory"):
        ddkern.quantize(X, 2, groups=GROUPS, device=TWO)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A process that was started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_ends_the_work_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    in_shards(monkeypatch, 1)
    ended: list[bool] = []

    def during(arguments: dict[str, Any]) -> None:
        if arguments["group_ids"][0] == 0:
            _thread.interrupt_main()
        finished = False
        try:
            for _ in range(3000):  # what a long call does: it reports, now and then
                arguments["progress"](0, 1, 0.0)
                time.sleep(0.01)
            finished = True
        finally:
            ended.append(finished)

    with device.use_module(HostModule(during)), pytest.raises(KeyboardInterrupt):
        ddkern.quantize(X, 2, groups=GROUPS, device=TWO)
    assert ended in ([False], [False, False])
    assert not [t for t in threading.enumerate() if t.name.startswith("ddkern-")]


def test_ctrl_c_while_the_devices_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    in_shards(monkeypatch, 1)
    undisturbed: list[Any] = []

    class Pool(shards.ThreadPoolExecutor):
        def submit(self, *args: Any, **options: Any) -> Any:
            begun = super().submit(*args, **options)
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            return begun

    def during(arguments: dict[str, Any]) -> None:
        for _ in range(100):
            arguments["progress"](0, 1, 0.0)
            time.sleep(0.01)
        undisturbed.append(arguments["group_ids"])

    monkeypatch.setattr(shards, "ThreadPoolExecutor", Pool)
    with device.use_module(HostModule(during)), pytest.raises(KeyboardInterrupt):
        ddkern.quantize(X, 2, groups=GROUPS, device=TWO)
    assert not undisturbed


def test_progress_counts_all_groups(module: HostModule, monkeypatch: pytest.MonkeyPatch) -> None:
    in_shards(monkeypatch, 1)
    seen: list[ddkern.Progress] = []
    threads = set()

    def look(progress: ddkern.Progress) -> None:
        seen.append(progress)
        threads.add(threading.get_ident())

    ddkern.quantize(X, 2, groups=GROUPS, device=TWO, progress=look)
    assert (seen[-1].done, seen[-1].total, seen[-1].unit) == (12, 12, "groups")
    assert threads == {threading.get_ident()}

    def stop(progress: ddkern.Progress) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        ddkern.quantize(X, 2, groups=GROUPS, device=TWO, progress=stop)


# --- The argument ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("cuda", ValueError, "device='cuda'; it must be 'cpu', 'cpu:0' and so on"),
        ("gpu", ValueError, "device='gpu'; it must be"),
        (0, TypeError, "device=0; it must be"),
        ([], ValueError, r"device=\[\]; a list must name one device or more"),
        (["cpu:1", "cpu:1"], ValueError, "each once"),
        (["all"], None, ""),
    ],
)
def test_what_a_device_may_be(module: HostModule, given: Any, error: Any, said: str) -> None:
    if error is None:
        ddkern.quantize(X, 2, device=given)
        return
    for call in (
        lambda: ddkern.quantize(X, 2, device=given),
        lambda: ddkern.seed_centroids(X, 2, device=given),
        lambda: ddkern.assign(X, X[:2], device=given),
    ):
        with pytest.raises(error, match=said):
            call()
    assert not module.calls


def test_rows_on_a_device_stay_there(module: HostModule) -> None:
    with pytest.raises(ValueError, match="device='cpu:1', but x lies on cpu; only rows in CPU"):
        ddkern.quantize(torch.from_numpy(X), 2, device="cpu:1")


def test_on_the_cpu_nothing_changes() -> None:
    q = ddkern.quantize(X, 2, random_state=0, device="cpu")
    assert q.stats.n_threads >= 1


def test_numbers_of_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    x = device.see(X, "x")
    with device.use_module(SimpleNamespace(), "cuda"):
        assert device.parse_device("cuda", x) == [torch.device("cuda:1")]
        assert device.parse_device("all", x) == [torch.device("cuda:0"), torch.device("cuda:1")]
        assert device.parse_device(torch.device("cuda:0"), x) == [torch.device("cuda:0")]
        assert device.parse_device(None, x) == device.parse_device("cpu", x) == []
        with pytest.raises(ValueError, match="device='cuda:2'; there are 2 CUDA devices"):
            device.parse_device("cuda:2", x)
        with pytest.raises(ValueError, match="each once"):
            device.parse_device(["cuda", "cuda:1"], x)


def test_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_obstacle", lambda: "no NVIDIA driver")
    for given in ("cuda", "all", ["cuda:0"]):
        with pytest.raises(ddkern.UnsupportedError, match="cannot work there: no NVIDIA driver"):
            ddkern.quantize(X, 2, device=given)
