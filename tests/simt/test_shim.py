# SPDX-License-Identifier: Apache-2.0
"""The stand-in for CUDA runs correct kernels correctly and catches planted mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from helpers.simt import load_simt, simt_folder, simt_options

SEEDS = (0, 1, 2, 3, 20)
# simt_checks::Bug
WRITE_OUTSIDE, NO_BARRIER, DIVERGENT, MISSING_LANES, NO_WAIT, OVERRUN, NO_WARP_BARRIER = range(1, 8)
F32_EPSILON = 2.0**-23


@pytest.fixture(params=SEEDS)
def seeded(request: pytest.FixtureRequest) -> Any:
    with simt_options(seed=request.param) as simt:
        yield simt


def sample(n: int, seed: int = 0) -> np.ndarray:
    """Values that sum without rounding in any order."""
    return np.random.default_rng(seed).integers(-40, 41, n).astype(np.float32)


def halves(rows: int, depth: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(-32, 33, (rows, depth)) / 16
    return values.astype(np.float16)


# ------------------------------------------------------------------------------- correct kernels
@pytest.mark.parametrize("host_threads", [1, 2])
def test_block_sums(seeded: Any, host_threads: int) -> None:
    seeded.simt_options(host_threads=host_threads)
    x = sample(3000)
    sums, total = seeded.check_block_sums(x)
    assert np.array_equal(sums, np.pad(x, (0, 72)).reshape(-1, 256).sum(axis=1))
    assert total == x.sum(dtype=np.float64)


@pytest.mark.parametrize("k", [1, 7, 32, 77])
def test_nearest_rows(seeded: Any, k: int) -> None:
    x, c = sample(301), sample(k, 1)
    nearest = seeded.check_nearest_rows(x, c)
    assert np.array_equal(nearest, np.argmin((x[:, None] - c[None, :]) ** 2, axis=1))


@pytest.mark.parametrize("late_copies", [False, True])
@pytest.mark.parametrize(("m", "n", "depth"), [(16, 8, 16), (33, 21, 80), (1, 1, 16)])
def test_tile_product(seeded: Any, late_copies: bool, m: int, n: int, depth: int) -> None:
    seeded.simt_options(late_copies=late_copies)
    a, b = halves(m, depth, 0), halves(n, depth, 1)
    d = seeded.check_tile_product(a.view(np.uint16), b.view(np.uint16))
    assert np.array_equal(d, a.astype(np.float32) @ b.astype(np.float32).T)


def test_warp_neighbours(seeded: Any) -> None:
    x = sample(200)
    lanes = np.pad(x, (0, 56)).reshape(-1, 32)
    expected = np.zeros_like(lanes)
    expected[:, 1:] += lanes[:, :-1]
    expected[:, :-1] += lanes[:, 1:]
    assert np.array_equal(seeded.check_warp_neighbours(x), expected.ravel()[:200])


def test_collectives(seeded: Any) -> None:
    x = np.random.default_rng(3).integers(0, 8, 256).astype(np.int32)
    out = seeded.check_collectives(x)
    lane = np.arange(256) % 32
    first = np.arange(256) - lane
    eight, half = lane // 8 * 8, lane // 16 * 16

    def bits(flags: np.ndarray) -> np.ndarray:
        words = (flags.reshape(-1, 32) << np.arange(32, dtype=np.uint64)).sum(axis=1)
        return np.repeat(words.astype(np.uint32).view(np.int32), 32)

    halves_of = np.repeat(x.reshape(-1, 16)[:, None, :], 16, axis=1).reshape(256, 16)
    blocks_of = np.repeat(x.reshape(-1, 64), 64, axis=0)
    matches = np.stack([x[f : f + 32] == v for f, v in zip(first, x, strict=True)])
    expected = [
        x[first + 5],
        x[first + eight + 3],
        x[first + (lane ^ 6)],
        x[first + np.where(lane + 3 < 32, lane + 3, lane)],
        x[first + np.where(lane + 3 < eight + 8, lane + 3, lane)],
        x[first + np.where(lane >= 3, lane - 3, lane)],
        bits((x > 2).astype(np.uint64)),
        (halves_of > 5).any(axis=1) + 2 * (halves_of > 0).all(axis=1),
        (matches.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(axis=1),
        (blocks_of > 6).any(axis=1),
        (blocks_of > 0).all(axis=1),
        (blocks_of > 3).sum(axis=1),
        x[first + (lane ^ 1)],
    ]
    assert half.max() == 16
    assert len(out) == len(expected)
    for row, (found, wanted) in enumerate(zip(out, expected, strict=True)):
        assert np.array_equal(found.view(np.uint32), wanted.astype(np.uint32)), row


# ------------------------------------------------------------------------------------ arithmetic
def test_half_is_binary16() -> None:
    simt = load_simt()
    bits = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = bits.view(np.float16).astype(np.float32)
    found = simt.half_to_float(bits)
    finite = ~np.isnan(values)
    assert np.array_equal(found[finite].view(np.uint32), values[finite].view(np.uint32))
    assert np.isnan(found[~finite]).all()
    # Every float next to a half, and half way to the next one.
    ordered = values[:0x7C00].astype(np.float64)
    middle = ((ordered[:-1] + ordered[1:]) / 2).astype(np.float32)
    middle = np.concatenate([middle, -middle])
    up = np.nextafter(middle, np.float32(np.inf))
    edges = np.float32([65519.9, 65520, 65536, 1e-8, 2**-25, 3 * 2**-26, np.inf, -np.inf, -0.0])
    x = np.concatenate([middle, up, np.nextafter(middle, np.float32(-np.inf)), edges])
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16).view(np.uint16)
    assert np.array_equal(simt.float_to_half(x), wanted)


def test_directed_rounding() -> None:
    simt = load_simt()
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 20000)).astype(np.float32)
    y *= np.float32(2.0) ** rng.integers(-60, 61, y.size).astype(np.float32)
    tiny = np.float32(-np.inf)

    def smallest_above(found: np.ndarray, exact: np.ndarray) -> bool:
        exact = exact.astype(np.longdouble)
        below = np.nextafter(found, tiny).astype(np.longdouble)
        return bool(np.all(found.astype(np.longdouble) >= exact) and np.all(below < exact))

    double = x.astype(np.float64) * 1.1
    assert smallest_above(simt.double_to_float_up(double), double)
    assert smallest_above(-simt.double_to_float_down(-double), double)
    assert smallest_above(simt.multiply_up(x, y), x.astype(np.float64) * y)
    root = simt.root_up(np.abs(x)).astype(np.float64)
    below = np.nextafter(root.astype(np.float32), tiny).astype(np.float64)
    assert np.all(root**2 >= np.abs(x))
    assert np.all(below**2 < np.abs(x))
    near = (np.abs(y) > 2.0**-16) & (np.abs(y) < 2.0**16)  # exact in long double
    assert smallest_above(simt.add_up(x, y)[near], (x.astype(np.longdouble) + y)[near])
    assert simt.add_up(np.float32(1), np.float32(1e-30)) == np.float32(1 + F32_EPSILON)
    assert simt.add_up(np.float32(1), np.float32(-1e-30)) == np.float32(1)


@pytest.mark.parametrize("mma_error", [1, -1, 2])
def test_mma_uses_up_its_bound(mma_error: int) -> None:
    a, b = halves(16, 16, 0), halves(8, 16, 1)
    exact = a.astype(np.float64) @ b.astype(np.float64).T
    largest = np.abs(a[:, None, :].astype(np.float64) * b[None, :, :]).max(axis=2)
    with simt_options(mma_error=mma_error) as simt:
        d = simt.check_tile_product(a.view(np.uint16), b.view(np.uint16))
    units = 20  # kMmaErrorUnits of core/cuda/mma.cuh
    error = (d - exact) / (units * F32_EPSILON * largest)
    assert np.abs(error).max() <= 1
    assert np.abs(error).min() > 0.5
    odd = np.add.outer(np.arange(16), np.arange(8)) % 2 == 1
    assert np.array_equal(error > 0, odd if mma_error == 2 else np.full(odd.shape, mma_error > 0))


def test_memory_runs_out() -> None:
    with (
        simt_options(memory=1000) as simt,
        pytest.raises(RuntimeError, match="cudaErrorMemoryAllocation"),
    ):
        simt.check_block_sums(sample(3000))


# --------------------------------------------------------------------------------- planted bugs
def test_missing_barrier_is_wrong() -> None:
    x = sample(1024)
    for seed in SEEDS:
        with simt_options(seed=seed) as simt:
            _, total = simt.check_block_sums(x, bug=NO_BARRIER)
        if total != x.sum(dtype=np.float64):
            return
    pytest.fail("no order of the threads showed the missing barrier")


def test_missing_warp_barrier_is_wrong() -> None:
    x = sample(64)
    for seed in SEEDS:
        with simt_options(seed=seed) as simt:
            wanted = simt.check_warp_neighbours(x)
            simt.check_warp_neighbours(-x)  # static shared memory keeps what was there
            assert not np.array_equal(simt.check_warp_neighbours(x, bug=NO_WARP_BARRIER), wanted)


def test_missing_wait_is_wrong_when_copies_are_late() -> None:
    a, b = halves(16, 64, 0).view(np.uint16), halves(8, 64, 1).view(np.uint16)
    with simt_options(late_copies=True) as simt:
        right = simt.check_tile_product(a, b)
        assert not np.array_equal(simt.check_tile_product(a, b, bug=NO_WAIT), right)


PROGRAM = """
import importlib.util, sys
import numpy as np
spec = importlib.util.spec_from_file_location("_simt", sys.argv[1])
simt = importlib.util.module_from_spec(spec)
spec.loader.exec_module(simt)
x, ones = np.ones(1024, np.float32), np.full((16, 16), 0x3C00, np.uint16)
{call}
print("survived")
"""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (f"simt.check_block_sums(x, bug={WRITE_OUTSIDE})", "write past the end of device memory"),
        (f"simt.check_block_sums(x, bug={DIVERGENT})", "divergent __syncthreads"),
        (f"simt.check_nearest_rows(x, x[:20], bug={MISSING_LANES})", "lanes 0xfff00000 have left"),
        (
            f"simt.check_tile_product(ones, ones, bug={OVERRUN})",
            "write past the end of the dynamic shared memory",
        ),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 5])
def test_planted_bug_aborts(call: str, message: str, seed: int) -> None:
    (module,) = simt_folder().glob("_simt.*.so")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=call), str(module)],
        check=False,
        env={**os.environ, "DDKERN_SIMT_SEED": str(seed)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode != 0
    assert "survived" not in ended.stdout
    if "AddressSanitizer: heap-buffer-overflow" in ended.stderr:
        assert "kernel" in ended.stderr  # the sanitizer names the line of the kernel first
        return
    lines = [line for line in ended.stderr.splitlines() if line.startswith("simt: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "_kernel" in lines[0]


@pytest.mark.parametrize(
    ("bug", "place"),
    [
        (0, None),
        (NO_BARRIER, "block_sums_kernel"),
        (NO_WAIT, None),  # the copy is in time here; late copies show this one
        (NO_WARP_BARRIER, "warp_neighbours_kernel"),
    ],
)
def test_thread_sanitizer_sees_races(bug: int, place: str | None) -> None:
    program = simt_folder() / "simt_race"
    if not program.is_file():
        pytest.skip("this build has no thread sanitizer")
    ended = subprocess.run(
        [str(program), str(bug)],
        check=False,
        env={**os.environ, "TSAN_OPTIONS": "halt_on_error=0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "unexpected memory mapping" in ended.stderr:
        pytest.skip("the thread sanitizer does not run under this kernel's address layout")
    if place is None:
        assert ended.returncode == 0, ended.stderr
        assert "data race" not in ended.stderr
    else:
        assert "data race" in ended.stderr
        assert place in ended.stderr
