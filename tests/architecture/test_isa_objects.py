# SPDX-License-Identifier: Apache-2.0
"""No object compiled for one instruction set offers the linker code that all CPUs might run.

An inline function compiled with ``-mavx512f`` is a weak symbol, and the linker may keep that copy
for the whole library, which then dies on a CPU that never chose AVX-512. So an object of a level
defines strong symbols alone, and every one of them carries the level in its name.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")

# nm's letters for global symbols that are strong, of code and of data. Lower case is local; u, v,
# V, w and W are the unique and weak ones that a linker merges across objects.
STRONG = set("TDRBGS")
MERGEABLE = set("uvVwW")

# A pointer to the C++ exception handler, the same in every object: data, no code of any level.
HARMLESS = "DW.ref.__gxx_personality_v0"


def isa_flags(cmake_lists: str) -> dict[str, list[str]]:
    """Compile flags of each level, from the ``set(ddkern_isa_flags_<level> ...)`` of CMake."""
    found = re.findall(r"set\(ddkern_isa_flags_(\w+)\s+([^)]*)\)", cmake_lists)
    return {level: flags.replace('""', "").split() for level, flags in found}


FLAGS = isa_flags((ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
LEVELS = [level for level in FLAGS if any(flag.startswith("-mavx") for flag in FLAGS[level])]
SOURCES = sorted(
    (level, path) for level in LEVELS for path in (ROOT / "csrc").rglob(f"*_{level}.cpp")
)


OPTIONS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-w"]


def compile_with(*arguments: str) -> None:
    assert COMPILER is not None
    subprocess.run([*COMPILER.split(), *OPTIONS, f"-I{ROOT / 'csrc'}", *arguments], check=True)


def precompiled(flags: list[str], folder: Path) -> list[str]:
    """Compile what every source of a level includes, once; returns the flags that make use of it.

    Reading the headers of all instruction sets is half of the work, and the headers define nothing
    that objects would export.
    """
    header = folder / "common.h"
    header.write_text("#include <immintrin.h>\n#include <vector>\n", encoding="utf-8")
    compile_with(*flags, "-x", "c++-header", str(header), "-o", f"{header}.gch")
    return ["-include", str(header)]


def defined_symbols(source: Path, flags: list[str], folder: Path) -> list[tuple[str, str]]:
    """``(letter, demangled name)`` of every symbol that the object of ``source`` defines."""
    target = folder / f"{source.stem}.o"
    compile_with(*flags, "-c", str(source), "-o", str(target))
    listing = subprocess.run(
        ["nm", "-C", "--defined-only", str(target)], check=True, capture_output=True, text=True
    ).stdout
    return [(line.split()[1], line.split(maxsplit=2)[2]) for line in listing.splitlines()]


def violations(symbols: list[tuple[str, str]], level: str) -> list[str]:
    """What is wrong with the symbols of an object of ``level``, as one line of text each."""
    found = []
    exported = [
        (letter, name)
        for letter, name in symbols
        if (letter.isupper() or letter in MERGEABLE) and name != HARMLESS
    ]
    if not any(letter in STRONG for letter, _ in exported):
        found.append("no strong symbol at all")
    # The level is a part of its own: "avx512" must not pass for "avx512bf16", nor the reverse.
    named = re.compile(rf"(?<![a-z0-9]){level}(?![a-z0-9])")
    for letter, name in exported:
        if letter in MERGEABLE:
            found.append(f"weak symbol {name}")
        elif letter not in STRONG:
            found.append(f"symbol of kind {letter}: {name}")
        elif not named.search(name.split("(")[0]):
            found.append(f"strong symbol without '{level}' in its name: {name}")
    return found


@pytest.fixture(scope="module")
def can_compile() -> None:
    if platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip(f"the levels {LEVELS} are for x86-64, this is {platform.machine()}")
    if COMPILER is None:
        pytest.skip("no C++ compiler: neither CXX nor g++ nor clang++")
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")


def test_flags_are_read_from_cmake() -> None:
    assert set(FLAGS) >= {"base", "avx2", "avx512", "avx512bf16"}
    assert FLAGS["base"] == []
    assert {"-mavx2", "-mfma"} <= set(FLAGS["avx2"])
    assert set(FLAGS["avx512"]) < set(FLAGS["avx512bf16"])


def test_every_level_has_sources() -> None:
    assert {level for level, _ in SOURCES} == set(LEVELS)


@pytest.mark.slow
@pytest.mark.usefixtures("can_compile")
def test_objects_export_their_own_symbols_only(tmp_path: Path) -> None:
    """Without inlining, which hides functions that another compiler would leave as symbols."""

    def prepare(level: str) -> list[str]:
        folder = tmp_path / level
        folder.mkdir()
        flags = ["-O0", *FLAGS[level]]
        return [*flags, *precompiled(flags, folder)]

    def check(item: tuple[str, Path]) -> list[str]:
        level, source = item
        symbols = defined_symbols(source, flags[level], tmp_path)
        return [f"{source.relative_to(ROOT)}: {fault}" for fault in violations(symbols, level)]

    # Compiling is done by child processes, so threads are enough to keep the cores busy.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        flags = dict(zip(LEVELS, pool.map(prepare, LEVELS), strict=True))
        assert [fault for faults in pool.map(check, SOURCES) for fault in faults] == []


@pytest.mark.usefixtures("can_compile")
@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("void scan_avx2(float*) {}", []),
        ("namespace k { namespace avx2 { extern const int t; const int t = 1; } }", []),
        ("namespace { void body(int*) {} } void scan_avx2(int* p) { body(p); }", []),
        ("void scan(float*) {}", ["strong symbol without 'avx2' in its name: scan(float*)"]),
        ("void scan(int avx2) {}", ["strong symbol without 'avx2' in its name: scan(int)"]),
        ("void scan_avx2bf16() {}", ["strong symbol without 'avx2' in its name: scan_avx2bf16()"]),
        (
            "inline int twice(int v) { return 2 * v; } int scan_avx2(int v) { return twice(v); }",
            ["weak symbol twice(int)"],
        ),
        (
            "inline int& count() { static int n; return n; } int scan_avx2() { return count(); }",
            ["weak symbol count()", "weak symbol count()::n"],
        ),
        ("static int unused_avx2;", ["no strong symbol at all"]),
    ],
)
def test_seeded_object_is_judged(tmp_path: Path, source: str, faults: list[str]) -> None:
    path = tmp_path / "scan_avx2.cpp"
    path.write_text(source + "\n", encoding="utf-8")
    assert violations(defined_symbols(path, ["-O0", *FLAGS["avx2"]], tmp_path), "avx2") == faults
