# SPDX-License-Identifier: Apache-2.0
"""C++ includes point downward: core, then kmeans, matching, network, then python; never torch.

And a file includes what it uses, though the build has read the common headers before it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"

MAY_INCLUDE = {
    "core": {"core"},
    "kmeans": {"core", "kmeans"},
    "matching": {"core", "matching"},
    "network": {"core", "network"},
    "python": {"core", "kmeans", "matching", "network", "python"},
}

# Headers of Python and its binding libraries belong to csrc/python, those of torch to nobody.
BINDINGS = re.compile(r"^(Python\.h|pybind11/|numpy/|dlpack/)")
TORCH = re.compile(r"^(torch/|ATen/|c10/)")
# The stand-in for CUDA lives with the tests; launch.h alone reaches it.
SIMT = ("core/cuda/launch.h", "simt/cuda_on_cpu.h")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}

# What is used of the headers that CMakeLists.txt precompiles, names of namespace std.
NAMES = {
    "algorithm": "all_of any_of clamp copy copy_n equal fill fill_n find lower_bound max"
    " max_element min min_element minmax_element none_of nth_element partial_sort"
    " reverse sort stable_sort transform unique upper_bound",
    "array": "array",
    "atomic": "atomic memory_order_acquire memory_order_relaxed memory_order_release",
    "cmath": "abs ceil copysign exp fabs floor fma frexp isfinite isinf isnan ldexp log log2 lround"
    " nearbyint nextafter pow round sqrt trunc",
    "cstdint": "int32_t int64_t int8_t intptr_t uint16_t uint32_t uint64_t uint8_t uintptr_t",
    "cstring": "memcmp memcpy memmove memset strcmp strlen",
    "functional": "function greater hash less",
    "limits": "numeric_limits",
    "numeric": "accumulate iota partial_sum",
    "optional": "nullopt optional",
    "string": "string to_string",
    "type_traits": "conditional_t decay_t enable_if_t integral_constant is_floating_point_v"
    " is_same is_same_v is_signed_v make_unsigned_t remove_const_t remove_reference_t",
    "utility": "declval exchange forward index_sequence make_index_sequence make_pair move pair"
    " swap",
    "vector": "vector",
}
HEADER_OF = {name: header for header, names in NAMES.items() for name in names.split()}
STD_NAME = re.compile(r"\bstd::(\w+)")
COMMENT = re.compile(r"//.*")


def violations(csrc: Path) -> list[str]:
    """Every forbidden or dangling include below ``csrc``, as one line of text each."""
    found = []
    for path in sorted(item for item in csrc.rglob("*") if item.suffix in SUFFIXES):
        relative = path.relative_to(csrc)
        if relative.parts[0] not in MAY_INCLUDE:
            found.append(f"{relative}: no rule says what '{relative.parts[0]}' may include")
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            problem = match and _problem(relative, match[1], match[2], csrc)
            if problem:
                found.append(f"{relative}:{number}: {problem}")
    return found


def _problem(source: Path, bracket: str, header: str, csrc: Path) -> str | None:
    unit = source.parts[0]
    if TORCH.match(header):
        return f"includes <{header}>: the library is torch-free"
    if BINDINGS.match(header) and unit != "python":
        return f"includes <{header}>: bindings stay in csrc/python"
    if bracket == "<":
        return None
    if (source.as_posix(), header) == SIMT:
        return None
    if not (csrc / header).is_file():
        return f'includes "{header}", which is not a path below csrc'
    target = Path(header)
    if target.parts[0] not in MAY_INCLUDE[unit]:
        return f"'{unit}' includes \"{header}\" of '{target.parts[0]}'"
    if header.endswith(".inl.h"):
        op = target.name.removesuffix(".inl.h")
        if source.parent != target.parent or not source.name.startswith((f"{op}_", f"{op}.")):
            return f'includes "{header}", the body of another op'
    if header.endswith(".cuh") and source.suffix not in {".cu", ".cuh"}:
        return f'includes "{header}": device code is for .cu files'
    return None


def _standard_headers(path: Path, csrc: Path) -> set[str]:
    """Headers of the standard library that ``path`` includes, itself or through headers of ours."""
    found = set()
    for bracket, header in map(re.Match.groups, filter(None, map(INCLUDE.match, _lines(path)))):
        if bracket == "<":
            found.add(header)
        elif (csrc / header).is_file():
            found |= _standard_headers(csrc / header, csrc)
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def missing_includes(csrc: Path) -> list[str]:
    """Every name of ``NAMES`` used below ``csrc`` without its header, as one line of text each."""
    found = []
    for path in sorted(item for item in csrc.rglob("*") if item.suffix in {".h", ".cpp"}):
        headers = _standard_headers(path, csrc)
        code = "\n".join(COMMENT.sub("", line) for line in _lines(path))
        found += [
            f"{path.relative_to(csrc)}: std::{name} without <{HEADER_OF[name]}>"
            for name in sorted(set(STD_NAME.findall(code)))
            if name in HEADER_OF and HEADER_OF[name] not in headers
        ]
    return found


def test_includes_point_downward() -> None:
    assert violations(CSRC) == []


def test_scan_sees_the_sources() -> None:
    text = (CSRC / "python" / "module_cuda.cpp").read_text(encoding="utf-8")
    headers = {match[2] for match in map(INCLUDE.match, text.splitlines()) if match}
    assert {"pybind11/pybind11.h", "core/cuda/device_report.h"} <= headers


def test_files_include_what_they_use() -> None:
    assert missing_includes(CSRC) == []


def test_names_are_known_for_every_precompiled_header() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = re.search(r"set\(ddkern_common_headers ([^)]*)\)", text)
    assert listed is not None
    assert {f"<{header}>" for header in NAMES} == set(listed[1].split())


def test_missing_include_is_caught(tmp_path: Path) -> None:
    source = '#include "core/a.h"\nstd::vector<int> v;  // not std::sort\nstd::string s;\n'
    write_tree(tmp_path, {"core/a.h": "#include <vector>\n", "core/b.cpp": source})
    assert missing_includes(tmp_path) == ["core/b.cpp: std::string without <string>"]


def write_tree(csrc: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (csrc / name).parent.mkdir(parents=True, exist_ok=True)
        (csrc / name).write_text(text, encoding="utf-8")


CLEAN = {
    "core/isa.h": "#include <cstdint>\n",
    "core/cuda/reduce.cuh": "",
    "core/cuda/launch.h": '#include "simt/cuda_on_cpu.h"\n',
    "kmeans/kmeans.h": '#include "core/isa.h"\n',
    "network/network.h": '#include "core/isa.h"\n',
    "kmeans/scan/scan.h": "",
    "kmeans/scan/scan.inl.h": '#include "kmeans/scan/scan.h"\n',
    "kmeans/scan/scan_avx2.cpp": '#include "kmeans/scan/scan.inl.h"\n',
    "kmeans/scan/scan_sm90.cu": '#include "core/cuda/reduce.cuh"\n',
    "python/module.cpp": '#include <pybind11/pybind11.h>\n#include "kmeans/kmeans.h"\n',
}


def test_allowed_includes_pass(tmp_path: Path) -> None:
    write_tree(tmp_path, CLEAN)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("core/a.h", '#include "kmeans/kmeans.h"', "'core' includes \"kmeans/kmeans.h\""),
        ("kmeans/a.h", '  #  include "python/module.cpp"', "'kmeans' includes"),
        ("kmeans/a.cpp", '#include "network/network.h"', "'kmeans' includes"),
        ("network/a.cpp", '#include "kmeans/kmeans.h"', "'network' includes"),
        ("core/a.cpp", "#include <Python.h>", "bindings stay in csrc/python"),
        ("core/cuda/a.cu", "#include <pybind11/numpy.h>", "bindings stay in csrc/python"),
        ("kmeans/a.cpp", '#include "numpy/arrayobject.h"', "bindings stay in csrc/python"),
        ("python/a.cpp", "#include <torch/extension.h>", "torch-free"),
        ("core/cuda/a.cu", "#include <ATen/ATen.h>", "torch-free"),
        ("kmeans/a.cpp", '#include "kmeans/scan/scan.inl.h"', "the body of another op"),
        ("kmeans/dots/dots.inl.h", '#include "kmeans/scan/scan.inl.h"', "the body of another op"),
        ("kmeans/scan/scan_avx2.cpp", '#include "core/cuda/reduce.cuh"', "is for .cu files"),
        ("kmeans/scan/scan_avx2.cpp", '#include "scan.h"', "not a path below csrc"),
        ("kmeans/a.cpp", '#include "kmeans/gone.h"', "not a path below csrc"),
        ("core/cuda/a.cu", '#include "simt/cuda_on_cpu.h"', "not a path below csrc"),
        ("matching/a.cpp", '#include "kmeans/kmeans.h"', "'matching' includes"),
        ("nowhere/a.cpp", "", "no rule says what 'nowhere' may include"),
    ],
)
def test_forbidden_include_is_caught(tmp_path: Path, name: str, source: str, fault: str) -> None:
    write_tree(tmp_path, {**CLEAN, name: source})
    found = violations(tmp_path)
    assert len(found) == 1
    assert fault in found[0]
