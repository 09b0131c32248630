# SPDX-License-Identifier: Apache-2.0
"""Without OpenMP everything runs, on one thread.

One file asks OpenMP for threads, so that it alone has to be compiled without to know.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
THREADS = "csrc/core/parallel.cpp"

PROGRAM = """
#include <cstdio>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"

int main() {
  std::vector<int> visits(1000);
  int n_polls = 0;
  bool elsewhere = false;
  const std::thread::id here = std::this_thread::get_id();
  std::atomic<bool> cancelled{false};
  ddkern::Monitor monitor([&] { ++n_polls; });
  const ddkern::Team team(4, &monitor, &cancelled);
  team.for_ranges(1000, 7, [&](std::int64_t begin, std::int64_t end, int) {
    elsewhere = elsewhere || std::this_thread::get_id() != here;
    for (std::int64_t i = begin; i < end; ++i) ++visits[i];
  });
  int once = 0;
  for (const int n : visits) once += n == 1;
  cancelled = true;
  bool stopped = false;
  try {
    team.for_ranges(1000, 7, [](std::int64_t, std::int64_t, int) {});
  } catch (const ddkern::Cancelled&) {
    stopped = true;
  }
  std::printf("%d %d %d %d %d %d %d\\n", ddkern::built_with_openmp(), ddkern::max_threads(),
              ddkern::safe_threads(4), once, elsewhere, n_polls > 0, stopped);
}
"""


def test_one_file_asks_for_threads() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "csrc").rglob("*")
        if path.is_file()
        and re.search(r"#pragma omp|omp\.h|_OPENMP|\bomp_\w+\(", path.read_text(encoding="utf-8"))
    }
    assert users == {THREADS}


def test_on_one_thread_without_openmp(tmp_path: Path) -> None:
    if COMPILER is None:
        pytest.skip("no C++ compiler: neither CXX nor g++ nor clang++")
    main = tmp_path / "main.cpp"
    main.write_text(PROGRAM, encoding="utf-8")
    program = tmp_path / "serial"
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-pthread"]
    sources = [str(main), str(ROOT / THREADS)]
    subprocess.run(
        [*COMPILER.split(), *options, f"-I{ROOT / 'csrc'}", *sources, "-o", str(program)],
        check=True,
    )
    found = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    #                      OpenMP, threads, threads, items once, elsewhere, polled, stopped
    assert found.split() == ["0", "1", "1", "1000", "0", "1", "1"]
