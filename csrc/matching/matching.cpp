// SPDX-License-Identifier: Apache-2.0
#include "matching/matching.h"

#include "core/buffer.h"
#include "core/float_mode.h"
#include "matching/blocks.h"

namespace ddkern::matching {
namespace {

// What `of_block(tensor, first, n)` gives of every block, blocks added to the total of their tensor
// in their order.
template <class Sum, class T, class OfBlock>
std::vector<Sum> totals_of(const std::vector<TrajectoryBlock<T>>& tensors, const TotalOf& total_of,
                           std::int64_t n_totals, int n_threads, const OfBlock& of_block) {
  const std::int64_t n_blocks = count_blocks(tensors);
  Buffer<Sum> sums(n_blocks);
  for_blocks(
      tensors, n_blocks, n_threads,
      [&](const TrajectoryBlock<T>& of, std::int64_t first, std::int64_t n, std::int64_t block) {
        sums.data()[block] =
            of_block(TrajectoryBlock<T>{n, of.student + first, of.target + first,
                                        of.start == nullptr ? nullptr : of.start + first});
      });
  std::vector<Sum> totals(n_totals);
  const Sum* next = sums.data();
  for (std::size_t tensor = 0; tensor < tensors.size(); ++tensor) {
    Sum& total = totals[total_of[tensor]];
    for (std::int64_t block = 0; block < blocks_of(tensors[tensor].n); ++block) total += *next++;
  }
  return totals;
}

}  // namespace

template <class T>
std::vector<TrajectorySums> trajectory_sums(const std::vector<TrajectoryBlock<T>>& tensors,
                                            const TotalOf& total_of, std::int64_t n_totals,
                                            int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = trajectory_ops<T>(active_isa());
  return totals_of<TrajectorySums>(tensors, total_of, n_totals, n_threads,
                                   [&](const TrajectoryBlock<T>& block) {
                                     TrajectorySums sums;
                                     ops.sums(block, sums.to_target, sums.of_start);
                                     return sums;
                                   });
}

template <class T>
std::vector<double> absolute_sums(const std::vector<TrajectoryBlock<T>>& tensors,
                                  const TotalOf& total_of, std::int64_t n_totals, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = trajectory_ops<T>(active_isa());
  return totals_of<double>(tensors, total_of, n_totals, n_threads,
                           [&](const TrajectoryBlock<T>& block) { return ops.absolute(block); });
}

template <class T>
void scaled_difference(const std::vector<DifferenceBlock<T>>& tensors, const TotalOf& total_of,
                       const float* factors, int n_threads) {
  const StandardFloatMode float_mode;
  const auto& ops = trajectory_ops<T>(active_isa());
  for_blocks(tensors, count_blocks(tensors), n_threads,
             [&](const DifferenceBlock<T>& of, std::int64_t first, std::int64_t n, std::int64_t) {
               ops.difference({n, of.a + first, of.b + first, of.out + first},
                              factors[total_of[&of - tensors.data()]]);
             });
}

#define DDKERN_INSTANTIATE(T)                                                                  \
  template std::vector<TrajectorySums> trajectory_sums(const std::vector<TrajectoryBlock<T>>&, \
                                                       const TotalOf&, std::int64_t, int);     \
  template std::vector<double> absolute_sums(const std::vector<TrajectoryBlock<T>>&,           \
                                             const TotalOf&, std::int64_t, int);               \
  template void scaled_difference(const std::vector<DifferenceBlock<T>>&, const TotalOf&,      \
                                  const float*, int)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(Bfloat16);

}  // namespace ddkern::matching
