# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ddkern import __version__, _core, backend

GIB = 1 << 30


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A made-up /proc and /sys/fs/cgroup, and no limits of the shell that runs the tests."""
    monkeypatch.setattr(backend, "_rlimits_left", lambda _: [])
    system = SimpleNamespace(proc=tmp_path / "proc", cgroup=tmp_path / "cgroup")
    _write(system.proc / "meminfo", f"MemTotal: 99 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    return system


def _available(system: SimpleNamespace) -> int:
    return backend.available_memory(system.proc, system.cgroup)


def test_memory_of_the_machine(system: SimpleNamespace) -> None:
    assert _available(system) == 8 * GIB


def test_memory_of_an_unknown_system(system: SimpleNamespace) -> None:
    (system.proc / "meminfo").unlink()
    assert _available(system) == 4 * GIB


def test_cgroup_v2_leaves_less(system: SimpleNamespace) -> None:
    _write(system.proc / "self" / "cgroup", "0::/slice/job\n")
    job = system.cgroup / "slice" / "job"
    _write(job / "memory.max", f"{3 * GIB}\n")
    _write(job / "memory.current", f"{2 * GIB}\n")
    _write(job / "memory.stat", f"anon 5\ninactive_file {GIB // 2}\n")
    assert _available(system) == GIB + GIB // 2


def test_limit_of_an_outer_cgroup_counts(system: SimpleNamespace) -> None:
    _write(system.proc / "self" / "cgroup", "0::/slice/job\n")
    _write(system.cgroup / "slice" / "job" / "memory.max", "max\n")
    _write(system.cgroup / "slice" / "memory.max", f"{2 * GIB}\n")
    _write(system.cgroup / "slice" / "memory.current", f"{GIB}\n")
    assert _available(system) == GIB


def test_container_sees_its_cgroup_as_the_root(system: SimpleNamespace) -> None:
    _write(system.proc / "self" / "cgroup", "0::/docker/0123abcd\n")
    _write(system.cgroup / "memory.max", f"{GIB}\n")
    _write(system.cgroup / "memory.current", "0\n")
    assert _available(system) == GIB


def test_cgroup_v1(system: SimpleNamespace) -> None:
    _write(system.proc / "self" / "cgroup", "5:cpu,cpuacct:/a\n4:memory:/job\n")
    job = system.cgroup / "memory" / "job"
    _write(job / "memory.limit_in_bytes", f"{2 * GIB}\n")
    _write(job / "memory.usage_in_bytes", f"{GIB}\n")
    _write(job / "memory.stat", "total_inactive_file 0\n")
    assert _available(system) == GIB


def test_overdrawn_cgroup_leaves_nothing_rather_than_less(system: SimpleNamespace) -> None:
    _write(system.proc / "self" / "cgroup", "0::/\n")
    _write(system.cgroup / "memory.max", "100\n")
    _write(system.cgroup / "memory.current", "200\n")
    assert _available(system) == 0


def test_address_space_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    limits = {
        resource.RLIMIT_AS: (3 * GIB, resource.RLIM_INFINITY),
        resource.RLIMIT_DATA: (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    }
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    _write(tmp_path / "self" / "status", f"Name: x\nVmSize: {GIB // 1024} kB\nVmData: 1 kB\n")
    assert backend.available_memory(tmp_path, tmp_path) == 2 * GIB


def test_default_budget_is_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "available_memory", lambda: 8 * GIB)
    assert backend.default_max_memory() == 2 * GIB
    monkeypatch.setattr(backend, "available_memory", lambda: 0)
    assert backend.default_max_memory() == 1


def test_max_threads_is_positive() -> None:
    assert backend.max_threads() >= 1


# -- CUDA ----------------------------------------------------------------------------------------

DEVICE = {
    "name": "NVIDIA H200",
    "compute_capability": (9, 0),
    "total_memory": 141 * GIB,
    "multiprocessors": 132,
}
DEVICE_IN_WORDS = "NVIDIA H200 (compute capability 9.0, 141 GiB)"


def _report(driver: int, error: str = "", devices: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {
        "runtime_version": 13000,
        "driver_version": driver,
        "error_name": error,
        "devices": list(devices),
    }


@pytest.mark.parametrize(
    ("report", "driver", "expected"),
    [
        (_report(0, "cudaErrorInsufficientDriver"), "", "no NVIDIA driver"),
        (
            _report(12040, "cudaErrorInsufficientDriver"),
            "550.54.14",
            "driver too old for CUDA 13 (found 550.54.14, needs 580 or newer)",
        ),
        (
            _report(12080, "cudaErrorInsufficientDriver"),
            "",
            "driver too old for CUDA 13 (found a driver for CUDA 12.8, needs 580 or newer)",
        ),
        (_report(13000, "cudaErrorNoDevice"), "580.1", "no device"),
        (_report(13010), "580.1", "no device"),
        (_report(13000, "cudaErrorUnknown"), "580.1", "CUDA runtime error cudaErrorUnknown"),
        (
            _report(13010, devices=(DEVICE,)),
            "580.1",
            f"CUDA 13.0, driver for CUDA 13.1; {DEVICE_IN_WORDS}",
        ),
    ],
)
def test_cuda_in_words(report: dict[str, Any], driver: str, expected: str) -> None:
    assert backend._describe_cuda(report, driver) == expected


def test_build_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    assert backend.cuda_status() == "built without CUDA"


def test_cuda_module_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "ddkern._cuda", None)
    assert backend.cuda_status().startswith("built with CUDA, but the module cannot be loaded: ")


def test_cuda_module_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object())
    module = SimpleNamespace(report=lambda: _report(0))
    monkeypatch.setitem(sys.modules, "ddkern._cuda", module)
    assert backend.cuda_status() == "no NVIDIA driver"


# -- config --------------------------------------------------------------------------------------


@pytest.mark.sanitize
def test_config_is_true_and_can_be_json() -> None:
    info = backend.config()
    assert json.loads(json.dumps(info)) == info
    assert info["ddkern"] == __version__
    assert info["isa"]["available"] == _core.isa_available()
    assert info["isa"]["active"] == _core.isa_active()
    assert info["isa"]["error"] is None
    assert info["threads"]["max"] == _core.max_threads()
    assert info["default_max_memory"] > 0


def test_config_survives_a_wrong_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise ValueError("DDKERN_ISA=sse9 is unknown")

    monkeypatch.setattr(backend._core, "isa_active", refuse)
    file = io.StringIO()
    backend.show_config(file)
    assert "ISA in use       none: DDKERN_ISA=sse9 is unknown\n" in file.getvalue()


def test_absent_package_is_not_installed() -> None:
    assert backend._installed_version("ddkern-has-no-such-neighbour") is None


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    backend.show_config()
    shown = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    shown = {name: value.strip() for name, value in shown.items()}
    assert shown["ddkern"] == __version__
    assert shown["ISA in use"] == _core.isa_active()
    assert shown["ISA available"].split() == _core.isa_available()
    assert shown["threads"].split()[0] == str(_core.max_threads())
    assert shown["CUDA"] == backend.cuda_status()
    assert shown["max_memory"].endswith("GiB by default")
