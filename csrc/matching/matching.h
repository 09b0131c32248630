// SPDX-License-Identifier: Apache-2.0
// Losses between networks, as lists of tensors: their parameters, without flattening.
//
// The arithmetic is that of the ops, one folder each. Here tensors are cut into blocks of a fixed
// size, blocks are handed to threads, and their sums are added in the order of tensors and blocks:
// the same bits for any number of threads. Tensors are added up to one total or to several: those
// of layers, or of the members of a batch.
#pragma once

#include <cstdint>
#include <vector>

#include "matching/trajectory/trajectory.h"

namespace ddkern::matching {

// ||student - target||^2 and, where the tensors have a start, ||start - target||^2; else 0.
struct TrajectorySums {
  double to_target = 0;
  double of_start = 0;

  TrajectorySums& operator+=(const TrajectorySums& other) {
    to_target += other.to_target;
    of_start += other.of_start;
    return *this;
  }
};

// For each tensor the index of its total, or of its factor: in [0, n_totals).
using TotalOf = std::vector<std::int64_t>;

// T is float or Bfloat16. At most n_threads threads, fewer where there is little to do.
template <class T>
std::vector<TrajectorySums> trajectory_sums(const std::vector<TrajectoryBlock<T>>& tensors,
                                            const TotalOf& total_of, std::int64_t n_totals,
                                            int n_threads);
// sum |student - target|
template <class T>
std::vector<double> absolute_sums(const std::vector<TrajectoryBlock<T>>& tensors,
                                  const TotalOf& total_of, std::int64_t n_totals, int n_threads);
// factors: one a total.
template <class T>
void scaled_difference(const std::vector<DifferenceBlock<T>>& tensors, const TotalOf& total_of,
                       const float* factors, int n_threads);

}  // namespace ddkern::matching
