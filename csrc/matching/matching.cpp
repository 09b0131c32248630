// SPDX-License-Identifier: Apache-2.0
#include "matching/matching.h"

#include "core/buffer.h"
#include "core/float_mode.h"
#include "matching/blocks.h"

namespace ddkern::matching {
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
double absolute_sum(const std::vector<TrajectoryBlock<T>>& tensors, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = trajectory_ops<T>(active_isa());
  const std::int64_t n_blocks = count_blocks(tensors);
  Buffer<double> sums(n_blocks);
  for_blocks(
      tensors, n_blocks, n_threads,
      [&](const TrajectoryBlock<T>& of, std::int64_t first, std::int64_t n, std::int64_t block) {
        sums.data()[block] = ops.absolute({n, of.student + first, of.target + first, nullptr});
      });
  double total = 0;
  for (std::int64_t block = 0; block < n_blocks; ++block) total += sums.data()[block];
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
template double absolute_sum(const std::vector<TrajectoryBlock<float>>&, int);
template double absolute_sum(const std::vector<TrajectoryBlock<Bfloat16>>&, int);
template void scaled_difference(const std::vector<DifferenceBlock<float>>&, float, int);
template void scaled_difference(const std::vector<DifferenceBlock<Bfloat16>>&, float, int);

}  // namespace ddkern::matching
