// SPDX-License-Identifier: Apache-2.0
#include "matching/matching.h"

#include <algorithm>
#include <atomic>

#include "core/buffer.h"
#include "core/float_mode.h"
#include "core/parallel.h"

namespace ddkern::matching {
namespace {

constexpr std::int64_t kBlock = kTrajectoryBlock;
// Blocks for which it is worth waking another thread, which takes some microseconds.
constexpr std::int64_t kBlocksPerThread = 4;

std::int64_t blocks_of(std::int64_t n) { return (n + kBlock - 1) / kBlock; }

// run(tensor, first, n, block) for all blocks of all tensors, which are numbered in their order.
template <class Tensor, class Run>
void for_blocks(const std::vector<Tensor>& tensors, std::int64_t n_blocks, int n_threads,
                const Run& run) {
  const auto useful = std::max<std::int64_t>(1, n_blocks / kBlocksPerThread);
  const int n_workers = static_cast<int>(std::min<std::int64_t>(safe_threads(n_threads), useful));
  std::atomic<bool> cancelled{false};
  const Team team(n_workers, nullptr, &cancelled);
  const std::int64_t grain = std::max<std::int64_t>(1, n_blocks / (8 * n_workers));
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

}  // namespace

template <class T>
TrajectorySums trajectory_sums(const std::vector<TrajectoryBlock<T>>& tensors, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = trajectory_ops<T>(active_isa());
  const std::int64_t n_blocks = count_blocks(tensors);
  Buffer<TrajectorySums> sums(n_blocks);
  for_blocks(
      tensors, n_blocks, n_threads,
      [&](const TrajectoryBlock<T>& of, std::int64_t first, std::int64_t n, std::int64_t block) {
        TrajectorySums& sum = sums.data()[block];
        ops.sums({n, of.student + first, of.target + first,
                  of.start == nullptr ? nullptr : of.start + first},
                 sum.to_target, sum.of_start);
      });
  TrajectorySums total{0, 0};
  for (std::int64_t block = 0; block < n_blocks; ++block) {
    total.to_target += sums.data()[block].to_target;
    total.of_start += sums.data()[block].of_start;
  }
  return total;
}

template <class T>
void scaled_difference(const std::vector<DifferenceBlock<T>>& tensors, float factor,
                       int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = trajectory_ops<T>(active_isa());
  for_blocks(tensors, count_blocks(tensors), n_threads,
             [&](const DifferenceBlock<T>& of, std::int64_t first, std::int64_t n, std::int64_t) {
               ops.difference({n, of.a + first, of.b + first, of.out + first}, factor);
             });
}

template TrajectorySums trajectory_sums(const std::vector<TrajectoryBlock<float>>&, int);
template TrajectorySums trajectory_sums(const std::vector<TrajectoryBlock<Bfloat16>>&, int);
template void scaled_difference(const std::vector<DifferenceBlock<float>>&, float, int);
template void scaled_difference(const std::vector<DifferenceBlock<Bfloat16>>&, float, int);

}  // namespace ddkern::matching
