# SPDX-License-Identifier: Apache-2.0
"""What the extension module for a device is given, and what is made of its answers.

The module is a stand-in on host memory, and tensors on the CPU play the device's.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern.kmeans import device
from ddkern.kmeans.device_arrays import to_device_array
from helpers.bits import ANSWER_FIELDS, assert_same_array_bits, assert_same_bits
from helpers.device import (
    HostModule,
    assert_same_as_on_the_cpu,
    assert_same_assignment_as_on_the_cpu,
    assert_same_few_as_on_the_cpu,
    assert_same_seeds_as_on_the_cpu,
    cases,
    few_cases,
)

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::ddkern.EmptyCellWarning"),
]

RNG = np.random.default_rng(3)
X = torch.from_numpy(RNG.normal(size=(60, 8)).astype(np.float32))


@pytest.fixture
def module() -> Iterator[HostModule]:
    stand_in = HostModule()
    with device.use_module(stand_in):
        yield stand_in


# --- The whole way --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases())
def test_same_result_as_the_cpu(module: HostModule, name: str) -> None:
    assert_same_as_on_the_cpu(cases()[name], "cpu")
    assert [call for call, _ in module.calls] == ["fit"]


@pytest.mark.parametrize("name", [name for name, case in cases().items() if case.draws])
def test_same_seeds_as_the_cpu(module: HostModule, name: str) -> None:
    assert_same_seeds_as_on_the_cpu(cases()[name], "cpu")
    assert [call for call, _ in module.calls] == ["seed"]


@pytest.mark.parametrize("name", cases())
def test_same_assignment_as_the_cpu(module: HostModule, name: str) -> None:
    assert_same_assignment_as_on_the_cpu(cases()[name], "cpu")
    assert {call for call, _ in module.calls} == {"assign"}


@pytest.mark.parametrize("name", few_cases())
def test_same_few_as_the_cpu(module: HostModule, name: str) -> None:
    assert_same_few_as_on_the_cpu(few_cases()[name], "cpu")
    assert {call for call, _ in module.calls} == {"assign"}


def test_module_is_used_inside_the_block_alone() -> None:
    stand_in = HostModule()
    with device.use_module(stand_in):
        ddkern.quantize(X.numpy(), 2, random_state=0)
        assert not stand_in.calls
        ddkern.quantize(X, 2, random_state=0)
        assert len(stand_in.calls) == 1
    ddkern.quantize(X, 2, random_state=0)
    assert len(stand_in.calls) == 1


# --- Arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_passed_where_they_lie(module: HostModule, dtype: Any) -> None:
    x = X.to(dtype)
    ddkern.quantize(x, 3, random_state=0)
    a = module.last
    assert a["x"] == x.data_ptr()
    assert a["float64"] is (dtype == torch.float64)
    assert (a["n_rows"], a["n_features"], a["row_stride"]) == (60, 8, 8)
    assert (a["device"], a["stream"]) == (0, 0)
    assert a["order"] is None
    assert a["offsets"].tolist() == [0, 60]
    assert a["k"].tolist() == [3]
    assert a["init_centroids"] == 0
    assert a["sample_weight"] is None
    assert "n_threads" not in a
    for name, kind in (("offsets", np.int64), ("group_ids", np.int64), ("seeds", np.uint64)):
        assert a[name].dtype == kind


@pytest.mark.parametrize(
    ("x", "stride", "in_place"),
    [
        (X[::2], 16, True),
        (X[7:, :5], 8, True),
        (X.reshape(60, 2, 4), 8, True),
        (X[:, :1], 8, True),
        (X[:, 3], 8, True),
        (X[:1].expand(20, 8), 0, True),
        (X.T, 60, False),
        (X[:, ::2], 4, False),
        (X.reshape(60, 2, 4).permute(0, 2, 1), 8, False),
        (X.reshape(60, 2, 4)[:, :, :3], 6, False),
        (X.double()[:, 1:].bfloat16(), 7, False),
    ],
)
def test_strides(module: HostModule, x: Any, stride: int, in_place: bool) -> None:
    q = ddkern.quantize(x, 1, random_state=0)
    assert (module.last["x"] == x.data_ptr()) == in_place
    assert module.last["row_stride"] == stride
    assert module.last["n_features"] == x[0].numel()
    assert_same_bits(q, ddkern.quantize(x.float().numpy(), 1, random_state=0))


def test_batch_in_place_and_not(module: HostModule) -> None:
    x = X.reshape(3, 20, 8)
    ddkern.quantize(x, 2, batch_dims=1, random_state=0)
    assert module.last["x"] == x.data_ptr()
    assert module.last["offsets"].tolist() == [0, 20, 40, 60]
    assert module.last["group_ids"].tolist() == [0, 0, 0]
    parts = x[:, 3:15]
    q = ddkern.quantize(parts, 2, batch_dims=1, random_state=0)
    assert module.last["x"] != parts.data_ptr()
    assert_same_bits(q, ddkern.quantize(parts.numpy(), 2, batch_dims=1, random_state=0))


@pytest.mark.parametrize(
    ("name", "wide"),
    [
        *((name, False) for name in ("bool", "uint8", "int8", "uint16", "int16")),
        *((name, False) for name in ("float16", "bfloat16", "float32")),
        *((name, True) for name in ("uint32", "int32", "uint64", "int64", "float64")),
    ],
)
def test_types(module: HostModule, name: str, wide: bool) -> None:
    values = RNG.integers(0, 2 if name == "bool" else 100, (50, 6))
    x = torch.from_numpy(values).to(getattr(torch, name))
    q = ddkern.quantize(x, 3, random_state=0)
    assert module.last["float64"] is wide
    kind = np.float64 if wide else np.float32
    assert_same_bits(q, ddkern.quantize(values.astype(kind), 3, random_state=0))
    s = ddkern.seed_centroids(x, 3, random_state=0)
    assert_same_array_bits(s.centroids, values.astype(kind)[s.indices.numpy()], "seeds")


def test_groups_weights_and_k_may_be_tensors(module: HostModule) -> None:
    ids = torch.from_numpy(RNG.permutation(np.repeat([5, -2, 9], 20)))
    weight, k = torch.rand(60), torch.tensor([1, 2, 3])
    q = ddkern.quantize(X, k, groups=ids, sample_weight=weight, random_state=torch.tensor(4))
    a = module.last
    assert a["order"].tolist() == np.argsort(ids.numpy(), kind="stable").tolist()
    assert a["group_ids"].tolist() == [-2, 5, 9]
    assert a["sample_weight"].dtype == np.float64
    assert a["k"].tolist() == [1, 2, 3]
    assert_same_bits(
        q,
        ddkern.quantize(
            X.numpy(),
            k.numpy(),
            groups=ids.numpy(),
            sample_weight=weight.numpy(),
            random_state=4,
        ),
    )


@pytest.mark.parametrize("kind", ["tensor", "numpy", "bfloat16", "list"])
def test_init_from_either_memory(module: HostModule, kind: str) -> None:
    start = X[:4].bfloat16()
    init = {
        "tensor": start.float(),
        "numpy": start.double().numpy()[::-1][::-1],
        "bfloat16": start,
        "list": start.tolist(),
    }[kind]
    q = ddkern.quantize(X, 4, init=init, random_state=0)
    assert module.last["init"] == "array"
    assert module.last["init_centroids"] != 0
    assert_same_bits(q, ddkern.quantize(X.numpy(), 4, init=start.float().numpy(), random_state=0))


@pytest.mark.parametrize("grouped", [False, True])
def test_centroids_that_the_rows_type_cannot_hold(module: HostModule, grouped: bool) -> None:
    """The rows go over to float64, a part at a time."""
    centroids = X[:6].double() + 1e-12
    options: dict[str, Any] = {"return_distance": True}
    if grouped:
        options |= {"groups": np.arange(60) % 2, "centroid_groups": np.arange(6) % 2}
    found = ddkern.assign(X, centroids, max_memory=2000, **options)
    assert len(module.calls) > 2
    assert all(a["float64"] for _, a in module.calls)
    expected = ddkern.assign(X.numpy(), centroids.numpy(), **options)
    for name, a, e in zip(("assignment", "distance"), found, expected, strict=True):
        assert isinstance(a, torch.Tensor)
        assert_same_array_bits(a, e, name)


def test_unsigned_rows_are_gathered(module: HostModule) -> None:
    ids = np.arange(60) % 2
    centroids = torch.tensor([[0.1] * 4, [50.3] * 4], dtype=torch.float64)
    for kind in (torch.uint16, torch.uint8):
        x = torch.from_numpy(RNG.integers(0, 99, (60, 4))).to(kind)
        options = {"groups": ids, "centroid_groups": [0, 1]}
        found = ddkern.assign(x, centroids, **options)
        assert_same_array_bits(found, ddkern.assign(x.numpy(), centroids.numpy(), **options), "a")


def test_max_memory(module: HostModule) -> None:
    ddkern.quantize(X, 2, max_memory=12345)
    assert module.last["max_memory"] == 12345
    with pytest.raises(ValueError, match="max_memory=0"):
        ddkern.quantize(X, 2, max_memory=0)


def test_default_max_memory_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.device("cuda", 1)
    by_device = {"mem_get_info": (800, 9999), "memory_reserved": 500, "memory_allocated": 100}
    for name, value in by_device.items():
        monkeypatch.setattr(torch.cuda, name, lambda d, value=value: value if d == here else None)
    assert device.workspace_bytes(here, None) == 900
    assert device.workspace_bytes(here, 77) == 77


# --- Workspace ------------------------------------------------------------------------------------


def test_workspace_is_aligned_and_lives_until_the_call_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks: list[weakref.ref[Any]] = []
    sizes = (1, 1000, 256, 100_000)
    genuine = torch.empty

    def empty(*args: Any, **options: Any) -> Any:
        tensor = genuine(*args, **options)
        if options["dtype"] == torch.uint8:
            blocks.append(weakref.ref(tensor))
        return tensor

    def during(a: dict[str, Any]) -> None:
        addresses = [a["allocate"](size) for size in sizes]
        assert all(address % 256 == 0 for address in addresses)
        for number, (address, size) in enumerate(zip(addresses, sizes, strict=True)):
            ctypes.memset(address, number, size)
        for number, (address, size) in enumerate(zip(addresses, sizes, strict=True)):
            assert ctypes.string_at(address, size) == bytes([number]) * size
        assert all(block() is not None for block in blocks)

    monkeypatch.setattr(torch, "empty", empty)
    with device.use_module(HostModule(during)):
        ddkern.quantize(X, 3, random_state=0)
    assert len(blocks) == len(sizes)
    assert all(block() is None for block in blocks)


def test_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with device.use_module(HostModule(lambda a: a["allocate"](10))):
        monkeypatch.setattr(torch, "empty", refuse)
        with pytest.raises(MemoryError, match="CUDA out of memory"):
            ddkern.quantize(X, 3, random_state=0)


# --- Results --------------------------------------------------------------------------------------


def test_results_are_tensors_on_the_device(module: HostModule) -> None:
    q = ddkern.quantize(X.double(), 3, groups=np.arange(60) % 3, random_state=0)
    for name in ANSWER_FIELDS:
        value = getattr(q, name)
        parts = value if isinstance(value, tuple) else (value,)
        assert all(isinstance(p, torch.Tensor) and p.device == X.device for p in parts), name
    kinds = {
        "centroids": torch.float64,
        "weights": torch.float64,
        "groups": torch.int64,
        "assignment": torch.int64,
        "distortion": torch.float64,
        "n_iter": torch.int64,
        "converged": torch.bool,
    }
    assert {name: getattr(q, name).dtype for name in kinds} == kinds
    assert (q.stats.isa, q.stats.n_threads) == ("sm_00", 0)
    assert isinstance(q.stats.restart, np.ndarray)
    assert "groups=3" in repr(q)
    centroids = q.centroids
    centroids += 1  # can be written to


def test_gradients_are_left_behind(module: HostModule) -> None:
    x = X.clone().requires_grad_()
    assert not ddkern.quantize(x * 1, 2, random_state=0).centroids.requires_grad


class Foreign:
    """An array of a made-up library that says it lies in CUDA memory."""

    def __init__(self, tensor: Any, device_type: int = 2) -> None:
        self.tensor, self.device_type = tensor, device_type
        self.shape = tensor.shape

    def __dlpack__(self, **options: Any) -> Any:
        raise AssertionError("never called without a GPU")

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device_type, 0

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(from_dlpack=Foreign)


def test_results_of_another_library(module: HostModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "from_dlpack", lambda foreign: foreign.tensor)
    q = ddkern.quantize(Foreign(X), 3, init=Foreign(X[:3]), random_state=0)
    assert module.last["x"] == X.data_ptr()
    expected = ddkern.quantize(X.numpy(), 3, init=X[:3].numpy(), random_state=0)
    for name in ANSWER_FIELDS:
        value, wanted = getattr(q, name), getattr(expected, name)
        pairs = zip(value, wanted, strict=True) if isinstance(value, tuple) else [(value, wanted)]
        for part, of_numpy in pairs:
            assert isinstance(part, Foreign), name
            assert_same_array_bits(part.tensor, of_numpy, name)
    assert repr(q) == repr(expected)


# --- Errors ---------------------------------------------------------------------------------------


def test_bad_values_are_named_as_on_the_cpu(module: HostModule) -> None:
    x = X.clone()
    x[17, 3] = np.nan
    with pytest.raises(ValueError, match="x holds NaN or infinity in row 17;"):
        ddkern.quantize(x, 2)
    with pytest.raises(ValueError, match=r"init holds NaN or infinity in row 1 \(in float32"):
        ddkern.quantize(X, 2, init=torch.tensor([[0.0] * 8, [1e300] * 8], dtype=torch.float64))


@pytest.mark.parametrize("kind", ["int64", "uint64"])
@pytest.mark.parametrize("groups", [None, [1, 0, 1, 0]])
def test_integers_beyond_float64(module: HostModule, kind: str, groups: Any) -> None:
    x = torch.tensor([[1], [2], [(1 << 53) + 1], [(1 << 53) + 3]], dtype=torch.int64)
    x = x.to(getattr(torch, kind))
    with pytest.raises(ValueError) as here:
        ddkern.quantize(x, 1, groups=groups)
    with pytest.raises(ValueError) as there:
        ddkern.quantize(x.numpy(), 1, groups=groups, n_threads=1)
    assert str(here.value) == str(there.value)
    with pytest.raises(ValueError, match="centroids hold 9007199254740995; integers must lie"):
        ddkern.assign(x[:2], x[2:])
    with pytest.raises(ValueError, match="centroids hold 18446744073709551615"):
        ddkern.assign(x[:2], np.array([[2**64 - 1]], np.uint64))
    x[:2] = torch.tensor([[0], [1 << 53]]).to(x.dtype)
    assert ddkern.quantize(x[:2], 1).centroids.item() == 2.0**52


def test_arguments_are_checked_as_on_the_cpu(module: HostModule) -> None:
    with pytest.raises(ValueError, match="n_threads=0"):
        ddkern.quantize(X, 2, n_threads=0)
    with pytest.raises(ValueError, match=r"init has shape \(2, 7\)"):
        ddkern.quantize(X, 2, init=X[:2, :7])
    with pytest.raises(TypeError, match="x has dtype complex64; supported are"):
        ddkern.quantize(X.to(torch.complex64), 2)
    with pytest.raises(TypeError, match="x has layout torch.sparse_coo"):
        ddkern.quantize(X.to_sparse(), 2)
    assert not module.calls


def test_two_devices() -> None:
    meta = X.to("meta")
    with (
        device.use_module(HostModule(), "meta"),
        pytest.raises(TypeError, match="init lies on meta and x in CPU memory; pass init.cpu"),
    ):
        ddkern.quantize(X.numpy(), 2, init=meta[:2])
    with (
        device.use_module(HostModule()),
        pytest.raises(TypeError, match="init lies on meta and x on cpu; both must lie on the same"),
    ):
        ddkern.quantize(X, 2, init=meta[:2])


def test_device_that_is_not_cuda() -> None:
    with pytest.raises(TypeError, match=r"x lies on meta, .*pass x.cpu\(\)"):
        ddkern.quantize(X.to("meta"), 2)


def test_errors_of_the_cuda_runtime() -> None:
    def fail(arguments: dict[str, Any]) -> None:
        raise RuntimeError("cudaErrorIllegalAddress")

    with (
        device.use_module(HostModule(fail)),
        pytest.raises(ddkern.CudaError, match="cudaErrorIllegalAddress"),
    ):
        ddkern.quantize(X, 2)


def test_errors_of_the_callers_progress(module: HostModule) -> None:
    seen = []

    def stop(progress: ddkern.Progress) -> None:
        seen.append(progress)
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as caught:
        ddkern.quantize(X, 2, progress=stop)
    assert type(caught.value) is RuntimeError
    assert seen[0].unit == "groups"


# --- Without what it takes ------------------------------------------------------------------------


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Whether CUDA can be used is asked once; here, it is asked anew."""
    device._obstacle.cache_clear()
    yield
    device._obstacle.cache_clear()


REPORT = {
    "runtime_version": 13000,
    "driver_version": 13000,
    "error_name": "",
    "devices": [
        {"name": "H100", "compute_capability": (9, 0), "total_memory": 1, "multiprocessors": 1}
    ],
}


@pytest.mark.parametrize(
    ("cuda", "said"),
    [
        (None, "built with CUDA, but the module cannot be loaded"),
        (SimpleNamespace(report=lambda: REPORT), "this build's CUDA module has no quantizer"),
        (
            SimpleNamespace(fit=None, report=lambda: {**REPORT, "driver_version": 0}),
            "no NVIDIA driver",
        ),
        (SimpleNamespace(fit=None, report=lambda: {**REPORT, "devices": []}), "no device"),
    ],
)
@pytest.mark.usefixtures("forgetful")
def test_build_or_machine_without_cuda(
    monkeypatch: pytest.MonkeyPatch, cuda: Any, said: str
) -> None:
    if cuda is not None and said == "no NVIDIA driver":
        cuda.report = lambda: {**REPORT, "driver_version": 0, "devices": []}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "ddkern._cuda", cuda)
    with pytest.raises(ddkern.UnsupportedError) as caught:
        ddkern.quantize(Foreign(X), 2)
    for part in ("x lies on cuda:0", said, "cuda_status()", "pass x.cpu() to use the CPU"):
        assert part in str(caught.value)


@pytest.mark.usefixtures("forgetful")
def test_cuda_that_works_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    working = SimpleNamespace(fit=None, report=lambda: REPORT)
    monkeypatch.setitem(sys.modules, "ddkern._cuda", working)
    assert not device._obstacle()


def test_without_torch(module: HostModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(TypeError, match="x lies on cuda:0; .* through torch, which cannot be"):
        ddkern.quantize(Foreign(X), 2)


def test_array_that_torch_does_not_take() -> None:
    with pytest.raises(TypeError, match="points, a Foreign on cuda:0, cannot be exchanged"):
        to_device_array(Foreign(X), "points")


def test_managed_memory_goes_over_the_older_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    class Managed(Foreign):
        __cuda_array_interface__ = None

    def as_tensor(x: Any, device: str) -> Any:
        assert device == "cuda:0"
        return x.tensor

    monkeypatch.setattr(torch, "as_tensor", as_tensor)

    def refuse(x: Any) -> Any:
        raise BufferError("kDLCUDAManaged")

    monkeypatch.setattr(torch, "from_dlpack", refuse)
    assert to_device_array(Managed(X, 13), "x").tensor.data_ptr() == X.data_ptr()


def test_library_without_a_namespace_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        def __dlpack__(self, **options: Any) -> Any:
            raise AssertionError

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    Older.__module__ = "made_up.core"
    library = SimpleNamespace(from_dlpack=lambda tensor: ("made up", tensor))
    monkeypatch.setitem(sys.modules, "made_up", library)
    monkeypatch.setattr(torch, "from_dlpack", lambda foreign: X)
    assert to_device_array(Older(), "x").wrap(X)[0] == "made up"
