# SPDX-License-Identifier: Apache-2.0
"""How a call gets along with the process around it: Ctrl-C, the GIL, threads, fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import numpy as np
import pytest

import ddkern
from helpers.bits import assert_same_bits


def _run(script: str, timeout: float = 60) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ENDLESS_CALLS = {
    "lloyd": "ddkern.quantize(x, 50, init='random', n_init=65535, tol=0, random_state=0)",
    "seeding": "ddkern.quantize(x, 20000, random_state=0, algorithm='streaming')",
    "many groups": (
        "ddkern.quantize(x, 3, groups=np.arange(len(x)) % 5000, n_init=65535, random_state=0)"
    ),
    "seed_centroids": "ddkern.seed_centroids(x, 20000, random_state=0, algorithm='streaming')",
    "assign": "ddkern.assign(x, np.repeat(x, 4, axis=0))",
}


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("call", ENDLESS_CALLS.values(), ids=ENDLESS_CALLS)
def test_ctrl_c_ends_a_long_call_within_a_second(call: str) -> None:
    # Processes in the background of a shell are born deaf to Ctrl-C.
    script = f"""
        import signal
        import time
        import numpy as np
        import ddkern
        signal.signal(signal.SIGINT, signal.default_int_handler)
        x = np.random.default_rng(0).normal(size=(50_000, 64)).astype(np.float32)
        ddkern.quantize(x[:100], 2, random_state=0)
        print("ready", flush=True)
        try:
            {call}
        except KeyboardInterrupt:
            print(time.time(), flush=True)
        else:
            print("finished", flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.5)
            sent = time.time()
            process.send_signal(signal.SIGINT)
            answer, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert answer != "finished\n", "the call was too short to be interrupted"
    assert process.returncode == 0
    # Half a second on top for a machine that is busy with other tests.
    assert float(answer) - sent < 1.5


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX signals")
def test_equal_rows_do_not_put_signals_off() -> None:
    # Every row is compared with the first of its cell, and here none of them ends that early. The
    # array takes no memory, and reading it takes long.
    script = """
        import signal
        import time
        import numpy as np
        import ddkern

        x = np.broadcast_to(np.float32(3), (300_000, 1024))
        heard = []
        signal.signal(signal.SIGALRM, lambda *_: heard.append(time.monotonic()))
        heard.append(time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        ddkern.quantize(x, 1, init=x[:1], max_iter=1, n_threads=1, max_memory=1)
        signal.setitimer(signal.ITIMER_REAL, 0)
        heard.append(time.monotonic())
        print(heard[-1] - heard[0], np.diff(heard).max())
    """
    total, longest = map(float, _run(script).split())
    assert total > 1, "the call was too short to tell"
    assert longest < total / 8


def test_gil_is_released() -> None:
    x = np.random.default_rng(0).normal(size=(20_000, 32)).astype(np.float32)
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.wait(0.001):
            ticks += 1

    clock = threading.Thread(target=tick)
    clock.start()
    try:
        before, started = ticks, time.perf_counter()
        ddkern.quantize(x, 64, init="random", n_init=4, random_state=0)
        during, seconds = ticks - before, time.perf_counter() - started
    finally:
        stop.set()
        clock.join()
    # A call that kept the GIL would let the other thread tick once or twice at its edges.
    assert seconds > 0.05, "the call was too short to tell"
    assert during > 10 * seconds


def test_calls_from_several_threads_at_once() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    expected = [ddkern.quantize(x, 5, random_state=seed) for seed in range(4)]
    results: dict[int, Any] = {}

    def work(seed: int) -> None:
        results[seed] = ddkern.quantize(x, 5, random_state=seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        assert_same_bits(results[seed], expected[seed])


def test_no_thread_of_ours_is_left_behind_in_python() -> None:
    before = threading.active_count()
    ddkern.quantize(np.arange(100.0), 3, random_state=0, progress=lambda _: None)
    assert threading.active_count() == before


FORK = """
    import os
    import sys
    import time
    import numpy as np
    import ddkern

    x = np.random.default_rng(0).normal(size=(4000, 32)).astype(np.float32)
    groups = np.arange(4000) % 4

    def call(n_threads):
        q = ddkern.quantize(x, 5, groups=groups, random_state=0, n_threads=n_threads)
        seeds = ddkern.seed_centroids(x, 5, random_state=0, n_threads=n_threads)
        found = ddkern.assign(x, seeds.centroids, n_threads=n_threads)
        return q.centroids.tobytes() + q.assignment.tobytes() + found.tobytes()

    expected = call(4)
    child = os.fork()
    if child == 0:
        same = call(None) == expected and call(4) == expected
        os._exit(0 if same and ddkern.backend.max_threads() == 1 else 3)
    deadline = time.monotonic() + 30
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            os.kill(child, 9)
            sys.exit("the forked child hangs")
        time.sleep(0.01)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"the forked child ended with {os.waitstatus_to_exitcode(status)}")
    if call(4) != expected:
        sys.exit("the parent changed its mind after the fork")
    print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_works_after_a_parallel_call() -> None:
    assert _run(FORK) == "fine\n"


WORKER = """
    import numpy as np
    import torch
    import ddkern

    x = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)

    class Centroids(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, seed):
            return ddkern.quantize(torch.from_numpy(x), 3, random_state=seed).centroids

    if __name__ == "__main__":
        expected = [Centroids()[seed] for seed in range(4)]
        loader = torch.utils.data.DataLoader(
            Centroids(), batch_size=None, num_workers=2, timeout=30,
            multiprocessing_context="fork",
        )
        assert all(torch.equal(a, b) for a, b in zip(loader, expected, strict=True))
        print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_data_loader_worker_works() -> None:
    pytest.importorskip("torch")
    assert _run(WORKER) == "fine\n"


@pytest.mark.parametrize("function", [ddkern.quantize, ddkern.seed_centroids])
@pytest.mark.sanitize
def test_calls_report_every_group(function: Any) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    seen: list[ddkern.Progress] = []
    function(x, 2, groups=np.arange(40) % 5, random_state=0, progress=seen.append)
    done = [report.done for report in seen]
    assert done == sorted(done)
    assert seen[-1].done == 5
    assert {(report.total, report.unit, report.note) for report in seen} == {(5, "groups", "")}
    assert all(report.seconds_elapsed >= 0 for report in seen)


def test_true_writes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    ddkern.quantize(np.arange(6.0), 2, random_state=0, progress=True)
    assert "quantize: 1 of 1 groups" in capsys.readouterr().err


def test_an_exception_ends_the_call() -> None:
    class EnoughError(Exception):
        pass

    def stop(_: ddkern.Progress) -> None:
        raise EnoughError

    x = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(EnoughError):
        ddkern.quantize(x, 2, groups=np.arange(40) % 5, random_state=0, progress=stop)
