# SPDX-License-Identifier: Apache-2.0
"""Rows in the memory of a GPU get the result of the CPU, to the bit, and get it where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ddkern
from ddkern.kmeans import shards
from helpers.bits import ANSWER_FIELDS, assert_same_array_bits
from helpers.device import (
    SEED,
    assert_for_all,
    assert_same_as_on_the_cpu,
    assert_same_assignment_as_on_the_cpu,
    assert_same_few_as_on_the_cpu,
    assert_same_seeds_as_on_the_cpu,
    cases,
    family_cases,
    few_cases,
    few_family_cases,
    on_the_cpu,
    tall_cases,
    tall_seed_cases,
)
from helpers.problems import DTYPES

torch = pytest.importorskip("torch")

from helpers.cuda import reason_to_skip  # noqa: E402

REASON = reason_to_skip("fit")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(REASON), reason=REASON or "never"),
    pytest.mark.filterwarnings("ignore::ddkern.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::ddkern.EmptyCellWarning"),
]

ALGORITHMS = ("auto", "gram", "streaming")
RNG = np.random.default_rng(4)
PLAIN = RNG.normal(size=(300, 24)).astype(np.float32)


def _on_the_host(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_on_the_host(part) for part in value]
    return value.cpu() if isinstance(value, torch.Tensor) else value


def _expect(q: ddkern.QuantizeResult, expected: ddkern.QuantizeResult) -> None:
    for name in ANSWER_FIELDS:
        assert_same_array_bits(_on_the_host(getattr(q, name)), getattr(expected, name), name)


# --- Bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", cases())
def test_quantize(name: str, algorithm: str) -> None:
    assert_same_as_on_the_cpu(cases()[name], "cuda", algorithm=algorithm)


@pytest.mark.parametrize("name", tall_cases())
def test_quantize_many_tiles(name: str) -> None:
    assert_same_as_on_the_cpu(tall_cases()[name], "cuda", algorithm="streaming")


@pytest.mark.parametrize("name", tall_seed_cases())
def test_seeds_of_many_tiles(name: str) -> None:
    assert_same_seeds_as_on_the_cpu(tall_seed_cases()[name], "cuda", algorithm="streaming")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", [name for name, case in cases().items() if case.draws])
def test_seed_centroids(name: str, algorithm: str) -> None:
    assert_same_seeds_as_on_the_cpu(cases()[name], "cuda", algorithm=algorithm)


@pytest.mark.parametrize("name", cases())
def test_assign(name: str) -> None:
    assert_same_assignment_as_on_the_cpu(cases()[name], "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_quantize_families(dtype: str, algorithm: str) -> None:
    assert_for_all(
        family_cases(dtype),
        lambda case: assert_same_as_on_the_cpu(case, "cuda", algorithm=algorithm),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_assign_families(dtype: str) -> None:
    assert_for_all(
        family_cases(dtype), lambda case: assert_same_assignment_as_on_the_cpu(case, "cuda")
    )


@pytest.mark.parametrize("name", few_cases())
def test_nearest_few(name: str) -> None:
    assert_same_few_as_on_the_cpu(few_cases()[name], "cuda")


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_few_families(dtype: str) -> None:
    assert_for_all(
        few_family_cases(dtype), lambda case: assert_same_few_as_on_the_cpu(case, "cuda")
    )


def test_nearest_few_without_distances() -> None:
    case = few_cases()["groups"]
    options = {"n_nearest": 3, **case.options}
    found = ddkern.assign(torch.from_numpy(case.x).cuda(), case.centroids, **options)
    expected = ddkern.assign(case.x, case.centroids, **options)
    assert_same_array_bits(found.cpu(), expected, "assignment")


@pytest.mark.parametrize(
    ("n", "d", "k", "n_nearest"),
    [(3000, 100, 2000, 2000), (20000, 64, 1000, 10), (1300, 4096, 200, 3), (70000, 3, 300, 299)],
)
def test_nearest_few_of_many(n: int, d: int, k: int, n_nearest: int) -> None:
    rng = np.random.default_rng([6, n])
    x, centroids = (rng.normal(size=(m, d)).astype("f4") for m in (n, k))
    centroids[k // 2 :: 7] = centroids[: len(centroids[k // 2 :: 7])]
    options = {"n_nearest": n_nearest, "return_distance": True}
    found = ddkern.assign(torch.from_numpy(x).cuda(), centroids, **options)
    for name, a, e in zip(
        ("assignment", "distance"), found, ddkern.assign(x, centroids, **options), strict=True
    ):
        assert_same_array_bits(a.cpu(), e, name)


@pytest.mark.parametrize("algorithm", ["gram", "streaming"])
@pytest.mark.parametrize(
    ("n", "d", "k", "groups"), [(3000, 100, 64, 1), (1300, 1024, 50, 3), (500, 4096, 10, 8)]
)
def test_larger_problems(algorithm: str, n: int, d: int, k: int, groups: int) -> None:
    rng = np.random.default_rng([5, n])
    means = rng.normal(size=(k, d))
    x = (means[rng.integers(0, k, n * groups)] + rng.normal(size=(n * groups, d))).astype("f4")
    ids = rng.permutation(np.repeat(np.arange(groups), n))
    options = {"groups": ids, "random_state": 3, "max_iter": 10}
    q = ddkern.quantize(torch.from_numpy(x).cuda(), k, algorithm=algorithm, **options)
    _expect(q, ddkern.quantize(x, k, **options))


def test_two_runs_agree() -> None:
    x = torch.from_numpy(PLAIN).cuda()
    a, b = (ddkern.quantize(x, 20, random_state=0, n_init=2) for _ in range(2))
    assert all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("centroids", "assignment"))


@pytest.mark.parametrize("name", cases())
def test_rows_of_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_LEAST_BYTES", 1)
    case = cases()[name]
    options = {"random_state": SEED, **case.options, "device": "all"}
    q = ddkern.quantize(case.rows("cpu"), case.k, **options)
    assert q.centroids.device.type == "cpu"
    _expect(q, on_the_cpu(case))


def test_rows_of_the_host_in_many_shards() -> None:
    """More than the page-locked blocks hold, and copies while kernels run."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(40 * 700, 1024)).astype(np.float32)
    ids = rng.permutation(np.repeat(np.arange(40), 700))
    options = {"groups": ids, "random_state": 3, "max_iter": 5}
    q = ddkern.quantize(x, 20, device="cuda", max_memory=64 << 20, **options)
    _expect(q, ddkern.quantize(x, 20, **options))
    centroids, owners = q.centroids, q.groups
    found = ddkern.assign(
        x, centroids, groups=ids, centroid_groups=owners, device="all", max_memory=64 << 20
    )
    assert_same_array_bits(found, q.assignment, "assignment")


# --- Where things lie -----------------------------------------------------------------------------


def test_results_lie_beside_the_rows() -> None:
    x = torch.from_numpy(PLAIN).cuda()
    q = ddkern.quantize(x, 3, groups=np.arange(300) % 2, random_state=0)
    for name in ANSWER_FIELDS:
        value = getattr(q, name)
        parts = value if isinstance(value, tuple) else (value,)
        assert all(part.device == x.device for part in parts), name
    assert q.stats.isa.startswith("sm_")
    assert q.stats.n_threads == 0
    assert "groups=2" in repr(q)
    s = ddkern.seed_centroids(x, 3, random_state=0)
    assert {v.device for v in (s.centroids, s.indices, s.groups, s.potential)} == {x.device}


def test_results_are_saved(tmp_path: Any) -> None:
    q = ddkern.quantize(torch.from_numpy(PLAIN).cuda(), 3, random_state=0)
    q.save(tmp_path / "q.npz")
    _expect(q, ddkern.QuantizeResult.load(tmp_path / "q.npz"))


@pytest.mark.parametrize("where", ["cuda", "cpu"])
def test_other_arguments_lie_anywhere(where: str) -> None:
    x, ids = torch.from_numpy(PLAIN), torch.arange(300) % 3
    weight, k = torch.rand(300, dtype=torch.float64), torch.tensor([2, 3, 4])
    init = x[:9] + 0.5
    given = {"groups": ids, "sample_weight": weight, "init": init}
    expected = ddkern.quantize(
        PLAIN, k.numpy(), **{name: value.numpy() for name, value in given.items()}
    )
    moved = {name: value.to(where) for name, value in given.items()}
    _expect(ddkern.quantize(x.cuda(), k.to(where), **moved), expected)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::2],
        lambda x: x[5:, 3:20],
        lambda x: x[:, ::3],
        lambda x: x[:24].T,
        lambda x: x[:, :1],
        lambda x: x.reshape(300, 4, 6).permute(0, 2, 1),
        lambda x: x[:1].expand(40, 24),
    ],
)
def test_strided_rows(view: Any) -> None:
    x = torch.from_numpy(PLAIN)
    k = 1 if view(x).stride(0) == 0 else 5
    q = ddkern.quantize(view(x.cuda()), k, random_state=1)
    _expect(q, ddkern.quantize(view(x).numpy(), k, random_state=1))


def test_stream_that_is_not_the_default() -> None:
    """Rows that are written on a stream just before the call are read after that."""
    expected = ddkern.quantize(PLAIN, 8, random_state=0)
    host = torch.from_numpy(PLAIN).pin_memory()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.zeros(300, 24, device="cuda")
        torch.cuda._sleep(50_000_000)
        x.copy_(host, non_blocking=True)
        q = ddkern.quantize(x, 8, random_state=0)
        doubled = q.centroids * 2
    stream.synchronize()
    _expect(q, expected)
    assert_same_array_bits(doubled.cpu(), expected.centroids * 2, "doubled")


def test_rows_on_a_second_device() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device")
    x = torch.from_numpy(PLAIN).to("cuda:1")
    q = ddkern.quantize(x, 5, random_state=0)
    assert q.centroids.device == x.device
    _expect(q, ddkern.quantize(PLAIN, 5, random_state=0))
    with pytest.raises(TypeError, match="init lies on cuda:0 and x on cuda:1"):
        ddkern.quantize(x, 5, init=x[:5].to("cuda:0"))


def test_workspace_is_given_back() -> None:
    x = torch.from_numpy(PLAIN).cuda()
    ddkern.quantize(x, 5, random_state=0)
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        ddkern.quantize(x, 5, random_state=0)
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_budget_changes_no_bit(algorithm: str) -> None:
    x = torch.from_numpy(PLAIN).cuda()
    for max_memory in (1 << 22, 1 << 26, None):
        q = ddkern.quantize(x, 9, random_state=0, algorithm=algorithm, max_memory=max_memory)
        _expect(q, ddkern.quantize(PLAIN, 9, random_state=0))


# --- Other libraries ------------------------------------------------------------------------------


def test_cupy_there_and_back() -> None:
    cupy = pytest.importorskip("cupy")
    x = cupy.asarray(PLAIN)
    q = ddkern.quantize(x, 5, random_state=0)
    assert all(isinstance(v, cupy.ndarray) for v in (q.centroids, q.assignment, q.converged))
    expected = ddkern.quantize(PLAIN, 5, random_state=0)
    for name in ("centroids", "weights", "assignment", "distortion", "n_iter", "converged"):
        assert_same_array_bits(getattr(q, name).get(), getattr(expected, name), name)


def test_jax_there_and_back() -> None:
    jax = pytest.importorskip("jax")
    try:
        place = jax.devices("cuda")[0]
    except RuntimeError as error:
        pytest.skip(f"JAX sees no CUDA device: {error}")
    x = jax.device_put(PLAIN, place)
    q = ddkern.quantize(x, 5, random_state=0)
    assert isinstance(q.centroids, jax.Array)
    assert q.centroids.devices() == {place}
    expected = ddkern.quantize(PLAIN, 5, random_state=0)
    assert_same_array_bits(np.asarray(q.centroids), expected.centroids, "centroids")
    assert np.array_equal(np.asarray(q.assignment), expected.assignment)


def test_cuda_array_interface() -> None:
    class Interface:
        def __init__(self, tensor: Any) -> None:
            self.__cuda_array_interface__ = tensor.__cuda_array_interface__
            self.tensor = tensor  # keeps the memory

    q = ddkern.quantize(Interface(torch.from_numpy(PLAIN).cuda()), 5, random_state=0)
    assert isinstance(q.centroids, torch.Tensor)
    _expect(q, ddkern.quantize(PLAIN, 5, random_state=0))


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_bad_rows_are_named(dtype: Any, value: float) -> None:
    x = torch.from_numpy(PLAIN).to(dtype)
    x[211, 23] = value
    with pytest.raises(ValueError, match="x holds NaN or infinity in row 211;"):
        ddkern.quantize(x.cuda(), 2, groups=np.arange(300) % 3)
    x[211, 23] = 0
    ddkern.quantize(x.cuda(), 2, random_state=0)  # an error leaves the device usable


def test_integers_beyond_float64() -> None:
    x = torch.tensor([[1], [2], [1 << 54]], device="cuda")
    with pytest.raises(ValueError, match=r"x holds an integer beyond 2\^53 in row 2;"):
        ddkern.quantize(x, 1)


def test_rows_on_the_host_and_centroids_on_the_device() -> None:
    x = torch.from_numpy(PLAIN)
    with pytest.raises(TypeError, match="init lies on cuda:0 and x in CPU memory"):
        ddkern.quantize(x, 3, init=x[:3].cuda())
    with pytest.raises(TypeError, match="centroids lies on cuda:0 and x in CPU memory"):
        ddkern.assign(PLAIN, x[:3].cuda())


def test_assign_to_centroids_that_float32_cannot_hold() -> None:
    centroids = PLAIN[:6].astype(np.float64) + 1e-12
    options = {"return_distance": True, "max_memory": 1 << 20}
    found = ddkern.assign(torch.from_numpy(PLAIN).cuda(), torch.from_numpy(centroids), **options)
    expected = ddkern.assign(PLAIN, centroids, **options)
    for name, a, e in zip(("assignment", "distance"), found, expected, strict=True):
        assert_same_array_bits(a.cpu(), e, name)


def test_progress() -> None:
    seen: list[ddkern.Progress] = []
    x = torch.from_numpy(PLAIN).cuda()
    ddkern.quantize(x, 2, groups=np.arange(300) % 5, random_state=0, progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (5, 5)
