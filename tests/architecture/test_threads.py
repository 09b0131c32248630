# SPDX-License-Identifier: Apache-2.0
"""Loops over threads: everybody helps in the end, and without OpenMP everything runs on one thread.

One file asks OpenMP for threads, so that it alone has to be compiled to know.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ddkern import _core

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
THREADS = "csrc/core/parallel.cpp"

SERIAL = """
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

# The first piece of every loop ends when all others have been done, which takes the other thread.
HELP = """
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "core/parallel.h"

int main() {
  std::atomic<bool> cancelled{false};
  const ddkern::Team team(2, nullptr, &cancelled);
  std::atomic<int> n_done{0};
  const auto wait_for_others = [&](std::int64_t begin, std::int64_t, int) {
    const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (begin == 0 && n_done < 11 && std::chrono::steady_clock::now() < patience) {
      std::this_thread::yield();
    }
    ++n_done;
    if (begin == 0) std::printf("%d ", n_done.load());
  };
  team.for_ranges(12, 1, wait_for_others);
  n_done = 0;
  std::int64_t order[2][12] = {};
  int n_of[2] = {};
  team.for_queue(12, [&](std::int64_t i, std::int64_t end, int thread) {
    order[thread][n_of[thread]++] = i;
    wait_for_others(i, end, thread);
  });
  // The thread that does not wait takes the others in their order.
  const int helper = n_of[0] > n_of[1] ? 0 : 1;
  for (int i = 0; i < n_of[helper]; ++i) std::printf("%d ", static_cast<int>(order[helper][i]));
  // What a thread does first is its own stretch, in every call the same.
  std::vector<int> first(2, -1), again(2, -1);
  for (auto* found : {&first, &again}) {
    std::atomic<int> n_started{0};
    team.for_ranges(12, 1, [&](std::int64_t begin, std::int64_t, int thread) {
      int& mine = (*found)[static_cast<std::size_t>(thread)];
      if (mine < 0) {
        mine = static_cast<int>(begin);
        ++n_started;
      }
      const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (n_started < 2 && std::chrono::steady_clock::now() < patience) {
        std::this_thread::yield();
      }
    });
  }
  std::printf("%d %d %d", first[0], first[1], first == again);
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


def output_of(program: str, folder: Path, *options: str) -> list[str]:
    """Compile a program together with the file that asks for threads, and run it."""
    if COMPILER is None:
        pytest.skip("no C++ compiler: neither CXX nor g++ nor clang++")
    source, binary = folder / "main.cpp", folder / "program"
    source.write_text(program, encoding="utf-8")
    files = [f"-I{ROOT / 'csrc'}", str(source), str(ROOT / THREADS), "-o", str(binary)]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    command = [*COMPILER.split(), "-std=c++17", *warnings, "-pthread", *options, *files]
    subprocess.run(command, check=True)
    return subprocess.run([binary], check=True, capture_output=True, text=True).stdout.split()


def test_on_one_thread_without_openmp(tmp_path: Path) -> None:
    found = output_of(SERIAL, tmp_path)
    #                OpenMP, threads, threads, items once, elsewhere, polled, stopped
    assert found == ["0", "1", "1", "1000", "0", "1", "1"]


@pytest.mark.skipif(not _core.has_openmp, reason="this build has no OpenMP")
def test_threads_have_stretches_of_their_own_and_help_each_other(tmp_path: Path) -> None:
    queue = [str(i) for i in range(1, 12)]
    assert output_of(HELP, tmp_path, "-fopenmp") == ["12", "12", *queue, "0", "6", "1"]
