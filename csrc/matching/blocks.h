// SPDX-License-Identifier: Apache-2.0
// Lists of tensors cut into blocks, and blocks handed to threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "core/parallel.h"
#include "matching/trajectory/trajectory.h"

namespace ddkern::matching {

constexpr std::int64_t kBlock = kTrajectoryBlock;
// Blocks for which it is worth waking another thread, which takes some microseconds.
constexpr std::int64_t kBlocksPerThread = 4;
// Up to so many blocks a thread, each has one run of them: what is still in its cache from the last
// call is worth more than that nobody waits. A block of three tensors is 192 KB.
constexpr std::int64_t kMostBlocksInCache = 16;

inline std::int64_t blocks_of(std::int64_t n) { return (n + kBlock - 1) / kBlock; }

// run(tensor, first, n, block) for all blocks of all tensors, which are numbered in their order.
template <class Tensor, class Run>
void for_blocks(const std::vector<Tensor>& tensors, std::int64_t n_blocks, int n_threads,
                const Run& run) {
  const auto useful = std::max<std::int64_t>(1, n_blocks / kBlocksPerThread);
  const int n_workers = static_cast<int>(std::min<std::int64_t>(safe_threads(n_threads), useful));
  std::atomic<bool> cancelled{false};
  const Team team(n_workers, nullptr, &cancelled);
  const std::int64_t each = (n_blocks + n_workers - 1) / n_workers;
  const std::int64_t grain =
      each <= kMostBlocksInCache ? each : std::max<std::int64_t>(1, n_blocks / (8 * n_workers));
  team.for_ranges(n_blocks, grain, [&](std::int64_t begin, std::int64_t end, int) {
    std::size_t tensor = 0;
    std::int64_t before = 0;
    for (std::int64_t block = begin; block < end; ++block) {
      while (block >= before + blocks_of(tensors[tensor].n)) {
        before += blocks_of(tensors[tensor++].n);
      }
      const std::int64_t first = (block - before) * kBlock;
      run(tensors[tensor], first, std::min(kBlock, tensors[tensor].n - first), block);
    }
  });
}

template <class Tensor>
std::int64_t count_blocks(const std::vector<Tensor>& tensors) {
  std::int64_t count = 0;
  for (const Tensor& tensor : tensors) count += blocks_of(tensor.n);
  return count;
}

}  // namespace ddkern::matching
