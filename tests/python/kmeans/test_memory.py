# SPDX-License-Identifier: Apache-2.0
"""How much memory a call takes on top of its data."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ddkern import _core

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak cannot be reset on this system"
)

MIB = 1 << 20

# Prints by how many bytes the resident memory grew at most during {call}, less what it returned.
PREPARE = """
    import ctypes
    import dataclasses
    import resource
    from pathlib import Path
    import numpy as np
    import ddkern

    def kib(field):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

    def fresh(n, d):
        # Repeated rows, moved a little: quick to make, and no two are equal.
        some = np.random.default_rng(0).normal(size=(500, d)).astype(np.float32)
        x = np.resize(some, (n, d))
        x += np.linspace(0, 1, n, dtype=np.float32)[:, None]
        return x
"""

MEASURE = """
    # Threads and modules that are loaded late. So few rows that the pool keeps next to nothing.
    ddkern.quantize(x[:64, :8], 2, groups=np.arange(64) % 4, random_state=0, n_threads=4)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = kib("VmRSS")
    result = {call}
    grown = (kib("VmHWM") - before) * 1024
    arrays = [result]
    if dataclasses.is_dataclass(result):
        arrays = [getattr(result, field.name) for field in dataclasses.fields(result)]
    print(grown - sum(a.nbytes for a in arrays if isinstance(a, np.ndarray)))
"""


def run(*parts: str) -> str:
    """Return what a script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(map(textwrap.dedent, parts))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def growth(setup: str, call: str) -> int:
    """Return by how many bytes memory grew at most during ``call``, less what it returned."""
    return int(run(PREPARE, setup, MEASURE.format(call=call)))


# Blocks are rounded up by at most a sixteenth; the rest is Python's and that of small blocks.
def most(max_memory: int) -> int:
    """Return the growth that ``max_memory`` allows."""
    return max_memory + max_memory // 16 + MIB


RAGGED = """
sizes = np.linspace(100, 3000, 40).astype(int)
np.random.default_rng(1).shuffle(sizes)
groups = np.repeat(np.arange(40), sizes)
x = fresh(sizes.sum(), 512)
"""
CALLS = {
    "quantize": "ddkern.quantize(x, 10, {options}, random_state=0, max_iter=3)",
    "gram": "ddkern.quantize(x, 40, {options}, random_state=0, max_iter=2, n_init=3)",
    "k differs": "ddkern.quantize(x, 1 + 37 * np.arange(40) % 90, {options}, max_iter=2)",
    "converted": "ddkern.quantize(x.view(np.int32), 10, {options}, max_iter=2)",
    "seed_centroids": "ddkern.seed_centroids(x, 10, {options}, random_state=0)",
    "assign": "ddkern.assign(x, x[:400], centroid_groups=np.arange(400) % 40, {options})",
}


# Every call by two threads, whose buffers add up; by one those whose groups ask most of it.
@pytest.mark.parametrize(
    ("call", "n_threads"),
    [
        *(pytest.param(call, 2, id=f"{name}-2") for name, call in CALLS.items()),
        *(pytest.param(CALLS[name], 1, id=f"{name}-1") for name in ("quantize", "k differs")),
    ],
)
def test_ragged_groups_stay_within_max_memory(call: str, n_threads: int) -> None:
    max_memory = 16 * MIB
    options = f"groups=groups, n_threads={n_threads}, max_memory={max_memory}"
    grown = growth(RAGGED, call.format(options=options))
    assert grown <= most(max_memory)
    assert grown > MIB // 2, "the peak was not measured"


FASTEST = {"avx512vnni": "bytes", "avx512bf16": "bytes"}

# With max_memory=1 nothing is kept that could be made again.
LEAST = {
    "many rows": ((300_000, 8), {"k": 20, "n_threads": 2}),
    "many features": ((900, 16384), {"k": 30, "n_threads": 2}),
    "many threads": ((1300, 8192), {"k": 50, "n_threads": 8}),
    "many centroids": ((2000, 1024), {"k": 500, "n_threads": 2}),
    "restarts": ((1500, 4096), {"k": 200, "init": "random", "n_init": 3, "n_threads": 2}),
    "random": ((3000, 2048), {"k": 300, "init": "random", "n_threads": 2}),
}


@pytest.mark.parametrize(("shape", "changes"), LEAST.values(), ids=LEAST)
def test_the_least_that_a_call_needs_is_known(
    shape: tuple[int, int], changes: dict[str, Any]
) -> None:
    options = {"init": "k-means++", "n_init": 1, "algorithm": "streaming", "max_memory": 1}
    options |= changes
    least = _core.plan(
        n_rows=shape[0],
        n_features=shape[1],
        float64=False,
        in_place=True,
        fastest=FASTEST.get(_core.isa_active(), "float32"),
        **options,
    )["least_bytes"]
    arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
    grown = growth(f"x = fresh{shape}", f"ddkern.quantize(x, {arguments}, max_iter=2)")
    assert grown <= most(least)
    assert least <= 2.5 * grown, "counted far too much"


def test_groups_of_one_size_take_turns_in_the_same_memory() -> None:
    count = """
        x = fresh(16 * 1300, 512)

        def page_faults(n_groups):
            rows = 1300 * n_groups
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            ddkern.quantize(x[:rows], 5, groups=np.arange(rows) // 1300, max_iter=2,
                            random_state=0, max_memory=24 << 20, n_threads=2)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        page_faults(4)
        print(page_faults(16) - page_faults(4))
    """
    # A group's blocks have about a thousand pages, of 4 KiB if not huge.
    assert int(run(PREPARE, count)) < 1000


def test_what_waits_for_reuse_is_given_up_before_memory_runs_out() -> None:
    limited = """
        x = fresh(5200, 2048)
        options = {"max_iter": 1, "random_state": 0, "n_threads": 1, "max_memory": 1 << 30}
        ddkern.quantize(x[:3000], 3, **options)  # blocks of 12 MB and 25 MB go on waiting
        room = (kib("VmSize") << 10) + (36 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        ddkern.quantize(x, 3, **options)  # 21 MB, for which the larger one is taken, and 43 MB
        print("fine")
    """
    assert run(PREPARE, limited) == "fine\n"
