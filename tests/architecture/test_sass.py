# SPDX-License-Identifier: Apache-2.0
"""The machine code in the wheel is for every GPU that it should be for, and is what was meant.

A kernel that lost its tensor-core instructions, keeps an array in memory, or has more registers
than a multiprocessor has for its blocks returns the same bits, late. No GPU is needed to see that:
NVIDIA's disassembler reads the module of the wheel that ``WHEEL`` names.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
WHEEL = os.environ.get("WHEEL", "")

# Of a multiprocessor, on every supported device; handed out by eight a thread and by warp.
REGISTERS = 65536
# Of a block where __launch_bounds__ names no number.
MOST_THREADS = 1024


class Kernel(NamedTuple):
    """What a mangled symbol says: source file, name and template arguments, these still mangled."""

    source: str
    name: str
    arguments: str


class Bounds(NamedTuple):
    """``__launch_bounds__`` of a kernel."""

    threads: int = MOST_THREADS
    blocks: int = 1


class Usage(NamedTuple):
    """Registers of a thread, and its bytes of local memory."""

    registers: int
    stack: int
    local: int


class Meant(NamedTuple):
    """Instructions that all of some kernels need to have, as far as their names are given."""

    source: str
    name: str
    arguments: str  # the mangled template arguments contain it
    architectures: str  # a regular expression
    opcodes: tuple[str, ...]


# 16816: m16n8k16 in one instruction. F32: sums, on which the bounds of the errors rest.
MEANT = [
    Meant("products", "product_kernel", "", "sm_", ("HMMA.16816.F32", "LDSM", "LDGSTS")),
    Meant("products", "product_scan_kernel", "", "sm_", ("HMMA.16816.F32", "LDSM", "LDGSTS")),
    Meant("products_sm90a", "gram_kernel", "", "sm_90a", ("HGMMA.64x256x16.F32", "LDGSTS")),
    Meant("products_sm90a", "product_scan_kernel", "", "sm_90a", ("HGMMA.64x64x16.F32", "LDGSTS")),
    # Rows that are not aligned are copied value by value.
    Meant("seed_chains", "chain_list_kernel", "Lb1E", "sm_", ("LDGSTS",)),
]


# ------------------------------------------------------------------------------- reading listings
def kernel_of(symbol: str) -> Kernel:
    """Take a mangled name apart; nvcc names an unnamed namespace after its source file."""
    names, rest = [], symbol.removeprefix("_ZN")
    while length := re.match(r"\d+", rest):
        end = length.end() + int(length[0])
        names.append(rest[length.end() : end])
        rest = rest[end:]
    assert names, symbol
    source = re.search(r"_GLOBAL__N__\w+?_\d+_(\w+)_cu_", "/".join(names))
    return Kernel(source[1] if source else "", names[-1], rest)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def architectures(asked_for: str) -> tuple[set[str], set[str]]:
    """Architectures with machine code and with PTX, of a list in CMake's notation."""
    code, ptx = set(), set()
    for item in asked_for.split(";"):
        number, _, kind = item.partition("-")
        code |= {f"sm_{number}"} if kind != "virtual" else set()
        ptx |= {f"sm_{number}"} if kind != "real" else set()
    return code, ptx


def asked_for() -> str:
    """Architectures of this build: those of the environment, or CMake's."""
    in_cmake = r'set\(CMAKE_CUDA_ARCHITECTURES "([\w;-]+)"\)'
    found = re.search(in_cmake, read(ROOT / "CMakeLists.txt"))
    assert found is not None
    return os.environ.get("DDKERN_CUDA_ARCHITECTURES") or found[1]


def usage_of(listing: str) -> dict[str, dict[str, Usage]]:
    """Of every architecture and symbol, from ``cuobjdump -res-usage``."""
    found: dict[str, dict[str, Usage]] = defaultdict(dict)
    architecture = symbol = ""
    for line in listing.splitlines():
        if at := re.match(r"arch = (\w+)", line):
            architecture = at[1]
        elif at := re.match(r"\s*Function (\w+):", line):
            symbol = at[1]
        elif at := re.match(r"\s*REG:(\d+) STACK:(\d+) .*\bLOCAL:(\d+)", line):
            found[architecture][symbol] = Usage(*map(int, at.groups()))
    return found


def bounds_of(ptx: str) -> dict[str, dict[str, Bounds]]:
    """Of every architecture and symbol, from ``cuobjdump -ptx``."""
    found: dict[str, dict[str, Bounds]] = defaultdict(dict)
    architecture = symbol = ""
    for line in ptx.splitlines():
        if at := re.match(r"arch = (\w+)", line):
            architecture = at[1]
        elif at := re.search(r"\.entry (\w+)", line):
            symbol = at[1]
            found[architecture][symbol] = Bounds()
        elif at := re.match(r"\.maxntid (\d+)(?:, *(\d+), *(\d+))?$", line):
            threads = int(at[1]) * int(at[2] or 1) * int(at[3] or 1)
            found[architecture][symbol] = found[architecture][symbol]._replace(threads=threads)
        elif at := re.match(r"\.minnctapersm (\d+)$", line):
            found[architecture][symbol] = found[architecture][symbol]._replace(blocks=int(at[1]))
    return found


def machine_code(cubin: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Symbols and code [n_instructions, 16 bytes] of the kernels in a 64-bit ELF file."""
    (sections,) = struct.unpack_from("<Q", cubin, 0x28)
    size, n_sections, of_names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, sections + i * size) for i in range(n_sections)]
    for name_at, _, _, _, start, n_bytes in headers:
        at = headers[of_names][4] + name_at
        name = cubin[at : cubin.index(b"\0", at)].decode()
        if name.startswith(".text."):
            code = np.frombuffer(cubin, np.uint8, n_bytes, start)
            yield name.removeprefix(".text."), code.reshape(-1, 16)


def opcodes_in(disassembly: str) -> list[str]:
    """Operation of every instruction, modifiers included."""
    instruction = r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?([A-Z][\w.]*)"
    return re.findall(instruction, disassembly, re.MULTILINE)


def opcodes_of(cubins: list[Path], architecture: str) -> dict[str, Counter[str]]:
    """How often every kernel has which operation, with the modifiers of the first in the kernel.

    The disassembler is slow. It gets one instruction for each value of the 12 bits that tell the
    operation, kernel by kernel, and every kernel is counted with the names that it returns.
    """
    firsts, counts = [], {}
    for cubin in cubins:
        for symbol, code in machine_code(cubin.read_bytes()):
            bits = code[:, :2].copy().view("<u2")[:, 0] & 0xFFF
            _, first, count = np.unique(bits, return_index=True, return_counts=True)
            firsts.append(code[first])
            counts[symbol] = count
    file = cubins[0].parent / f"{architecture}.bin"
    file.write_bytes(np.concatenate(firsts).tobytes())
    binary = architecture.replace("sm_", "SM")
    names = opcodes_in(run(file.parent, tool("nvdisasm"), "--binary", binary, file.name))
    assert len(names) == sum(map(len, firsts))
    found, rest = {}, iter(names)
    for symbol, count in counts.items():
        found[symbol] = Counter[str]()
        for n, name in zip(count, islice(rest, len(count)), strict=True):
            found[symbol][name] += int(n)
    return found


# ----------------------------------------------------------------------------------------- judging
def count(opcodes: Counter[str], name: str) -> int:
    """Occurrences of an instruction with any modifiers after `name`."""
    return sum(n for opcode, n in opcodes.items() if f"{opcode}.".startswith(f"{name}."))


def usage_faults(architecture: str, symbol: str, usage: Usage, bounds: Bounds) -> list[str]:
    who = f"{architecture} {symbol}: "
    faults = []
    if usage.stack or usage.local:
        faults.append(f"{who}{usage.stack} bytes of stack, {usage.local} of local memory")
    threads = -(-bounds.threads // 32) * 32
    registers = -(-usage.registers // 8) * 8
    if registers * threads * bounds.blocks > REGISTERS:
        faults.append(
            f"{who}{usage.registers} registers are too many for {bounds.blocks} blocks of "
            f"{bounds.threads} threads"
        )
    return faults


def opcode_faults(architecture: str, code: dict[str, Counter[str]]) -> list[str]:
    """What `code`, everything there is for `architecture`, lacks of what is meant."""
    faults = []
    for meant in MEANT:
        if not re.match(meant.architectures, architecture):
            continue
        kernels = {
            symbol: opcodes
            for symbol, opcodes in code.items()
            if (kernel := kernel_of(symbol))[:2] == meant[:2]
            and meant.arguments in kernel.arguments
        }
        if not kernels:
            faults.append(f"{architecture}: no {meant.name} of {meant.source}.cu")
        for symbol, opcodes in kernels.items():
            faults += [
                f"{architecture} {symbol}: no {name}"
                for name in meant.opcodes
                if count(opcodes, name) == 0
            ]
            # Where ptxas cannot keep the products of a stage together, each gets its own start and
            # wait: a remark of the compiler and no warning, so no error either.
            if 0 < count(opcodes, "HGMMA") <= count(opcodes, "WARPGROUP"):
                faults.append(f"{architecture} {symbol}: wgmma one by one")
    return faults


# -------------------------------------------------------------------------------------- the module
def tool(name: str) -> str:
    """Path of a program of NVIDIA's, from its package or else from a CUDA toolkit."""
    try:
        for file in importlib.metadata.files(f"nvidia-cuda-{name}") or []:
            if file.name == name:
                return str(file.locate())
    except importlib.metadata.PackageNotFoundError:
        pass
    path = shutil.which(name)
    if path is None:
        # pyproject.toml has them for this platform, so it must not go unnoticed there.
        expected = (sys.platform, platform.machine()) == ("linux", "x86_64")
        assert not expected, f"{name} is not installed: it is part of ddkern[dev]"
        pytest.skip(f"{name} is not installed")
    return path


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``_cuda`` of the wheel, in a folder of its own."""
    if not WHEEL.endswith(".whl"):
        pytest.skip("WHEEL names no wheel to look into (make wheel builds one)")
    folder = tmp_path_factory.mktemp("sass")
    with zipfile.ZipFile(WHEEL) as wheel:
        names = [name for name in wheel.namelist() if re.match(r"ddkern/_cuda\..*so$", name)]
        if not names:
            pytest.skip("the wheel was built without nvcc: it has no _cuda module")
        return Path(wheel.extract(names[0], folder))


@pytest.fixture(scope="module")
def usage(module: Path) -> dict[str, dict[str, Usage]]:
    return usage_of(run(module.parent, tool("cuobjdump"), "-res-usage", module.name))


@pytest.fixture(scope="module")
def bounds(module: Path) -> dict[str, dict[str, Bounds]]:
    return bounds_of(run(module.parent, tool("cuobjdump"), "-ptx", module.name))


def test_every_kernel_is_there_for_every_architecture(
    usage: dict[str, dict[str, Usage]], bounds: dict[str, dict[str, Bounds]]
) -> None:
    code, ptx = architectures(asked_for())
    assert set(usage) == code
    assert set(bounds) == ptx
    sources = {path.stem for path in (ROOT / "csrc").rglob("*.cu") if "__global__" in read(path)}
    kernels = [set(symbols) for symbols in usage.values()]
    kernels += [set(symbols) for symbols in bounds.values()]
    for symbols in kernels:
        assert symbols == kernels[0]
        assert {kernel_of(symbol).source for symbol in symbols} == sources


def test_kernels_have_no_stack_and_registers_for_their_blocks(
    usage: dict[str, dict[str, Usage]], bounds: dict[str, dict[str, Bounds]]
) -> None:
    if not bounds:
        pytest.skip("no PTX in the module, which has the launch bounds")
    of_symbol = next(iter(bounds.values()))
    faults = [
        fault
        for architecture, symbols in usage.items()
        for symbol, used in symbols.items()
        for fault in usage_faults(architecture, symbol, used, of_symbol[symbol])
    ]
    assert not faults, "\n".join(faults)


def test_kernels_have_the_instructions_that_they_are_meant_to_have(
    module: Path, usage: dict[str, dict[str, Usage]]
) -> None:
    folder = module.parent
    run(folder, tool("cuobjdump"), "-xelf", "all", module.name)
    faults = []
    for architecture, of_symbols in usage.items():
        opcodes = opcodes_of(sorted(folder.glob(f"*.{architecture}.cubin")), architecture)
        assert set(opcodes) == set(of_symbols)
        faults += opcode_faults(architecture, opcodes)
    assert not faults, "\n".join(faults)


# --------------------------------------------------------------------- the listings without a wheel
def mangled(source: str, name: str, arguments: str) -> str:
    space = f"_GLOBAL__N__1e230ddd_{len(source) + 3}_{source}_cu_2923715e"
    return f"_ZN6ddkern6kmeans4cuda{len(space)}{space}{len(name)}{name}{arguments}"


SCAN = mangled("products", "product_scan_kernel", "IfEEvNS1_5ChunkIT_EE")


def test_who_needs_instructions_is_listed() -> None:
    users = {
        path.stem
        for path in (ROOT / "csrc").rglob("*.cu")
        if re.search(r"core/cuda/mma\.cuh|\bw?mma\b|wgmma|cp\.async", read(path))
    }
    assert users == {meant.source for meant in MEANT}


def test_architectures_are_read() -> None:
    assert architectures("80-real;90a-real;100;120-real") == (
        {"sm_80", "sm_90a", "sm_100", "sm_120"},
        {"sm_100"},
    )
    assert architectures("80-virtual") == (set(), {"sm_80"})
    assert "sm_90a" in architectures(asked_for())[0] or "DDKERN_CUDA_ARCHITECTURES" in os.environ


def test_symbols_are_taken_apart() -> None:
    assert kernel_of(SCAN) == ("products", "product_scan_kernel", "IfEEvNS1_5ChunkIT_EE")
    assert kernel_of("_ZN6ddkern4cuda6kernelIfEEvv") == ("", "kernel", "IfEEvv")


def test_usage_is_read() -> None:
    listing = """
Fatbin elf code:
================
arch = sm_80
compressed

Resource usage:
 Common:
  GLOBAL:0
 Function one:
  REG:40 STACK:0 SHARED:16 LOCAL:0 CONSTANT[0]:776 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function two:
  REG:255 STACK:128 SHARED:0 LOCAL:8 CONSTANT[0]:776 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin ptx code:
================
arch = sm_120
"""
    assert usage_of(listing) == {"sm_80": {"one": Usage(40, 0, 0), "two": Usage(255, 128, 8)}}


def test_bounds_are_read() -> None:
    ptx = """
Fatbin ptx code:
================
arch = sm_120
.target sm_120
.weak .entry one(
.param .u32 one_param_0
)
{
ret;
}
.entry two(
)
.maxntid 256
.minnctapersm 2
{
.entry three(
)
.maxntid 32, 4, 2
{
"""
    found = {"one": Bounds(), "two": Bounds(256, 2), "three": Bounds(256, 1)}
    assert bounds_of(ptx) == {"sm_120": found}


def test_opcodes_are_read() -> None:
    disassembly = """
\t.headerflags\t@"EF_CUDA_SM80"
.text.one:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/              @!P0 EXIT ;
        /*0020*/             @!UP2 UIADD3 UR4, UR4, 0x1, URZ ;
.L_x_0:
        /*12340*/              @P1 HMMA.16816.F32 R28, R20.reuse, R102, R28 ;
        /*12350*/                  LDGSTS.E.BYPASS.128 [R21], [R12.64], !P5 ;
"""
    opcodes = ["MOV", "EXIT", "UIADD3", "HMMA.16816.F32", "LDGSTS.E.BYPASS.128"]
    assert opcodes_in(disassembly) == opcodes


def test_modifiers_may_follow() -> None:
    opcodes = Counter({"HMMA.16816.F32": 2, "HMMA.16816.F32.TF32": 1, "HGMMA.64x64x16.F32": 4})
    assert count(opcodes, "HMMA") == count(opcodes, "HMMA.16816.F32") == 3
    assert count(opcodes, "HMMA.168") == count(opcodes, "HMMA.16816.F16") == 0


def test_machine_code_is_found() -> None:
    names, code = b"\0.text.one\0.data\0", bytes(range(32))
    header = struct.pack("<40xQ10xHHH", 64, 64, 3, 2)
    at_code = 64 + 3 * 64
    table = [(1, at_code, 32), (11, 0, 16), (0, at_code + 32, len(names))]
    sections = [struct.pack("<IIQQQQ24x", name, 0, 0, 0, at, n) for name, at, n in table]
    ((symbol, found),) = machine_code(header + b"".join(sections) + code + names)
    assert symbol == "one"
    assert found.tolist() == [list(range(16)), list(range(16, 32))]


@pytest.mark.parametrize(
    ("used", "limits", "fault"),
    [
        (Usage(128, 0, 0), Bounds(256, 2), None),
        (Usage(121, 0, 0), Bounds(250, 2), None),
        (Usage(129, 0, 0), Bounds(256, 2), "129 registers are too many for 2 blocks of 256"),
        (Usage(64, 0, 0), Bounds(), None),
        (Usage(65, 0, 0), Bounds(), "65 registers are too many for 1 blocks of 1024"),
        (Usage(32, 8, 0), Bounds(256, 2), "8 bytes of stack, 0 of local memory"),
        (Usage(32, 0, 16), Bounds(256, 2), "0 bytes of stack, 16 of local memory"),
    ],
)
def test_seeded_usage_is_judged(used: Usage, limits: Bounds, fault: str | None) -> None:
    faults = usage_faults("sm_80", "one", used, limits)
    assert len(faults) == (fault is not None)
    assert all(str(fault) in text for text in faults)


def whole(*, waits: int = 2) -> dict[str, Counter[str]]:
    """Code that has all that is meant."""
    code = {
        mangled(meant.source, meant.name, f"IfL{meant.arguments}"): Counter(
            {f"{name}.X": 4 for name in meant.opcodes}
        )
        for meant in MEANT
    }
    for opcodes in code.values():
        opcodes["WARPGROUP.ARRIVE"] = waits
    return code


def test_seeded_code_is_judged() -> None:
    for architecture in ("sm_80", "sm_90a"):
        assert opcode_faults(architecture, whole()) == []
    for meant in MEANT:
        for name in meant.opcodes:
            code = whole()
            symbol = mangled(meant.source, meant.name, f"IfL{meant.arguments}")
            del code[symbol][f"{name}.X"]
            fault = f"sm_90a {symbol}: no {name}"
            assert opcode_faults("sm_90a", code) == [fault]
            del code[symbol]

            fault = f"sm_90a: no {meant.name} of {meant.source}.cu"
            assert opcode_faults("sm_90a", code) == [fault]


def test_seeded_waits_are_judged() -> None:
    faults = opcode_faults("sm_90a", whole(waits=8))
    assert len(faults) == 2
    assert all("wgmma one by one" in fault for fault in faults)


def test_other_architectures_need_no_wgmma() -> None:
    code = {symbol: opcodes for symbol, opcodes in whole().items() if "sm90a" not in symbol}
    assert opcode_faults("sm_100", code) == []
    assert len(opcode_faults("sm_90a", code)) == 2
