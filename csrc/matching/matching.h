// SPDX-License-Identifier: Apache-2.0
// Losses between networks, as lists of tensors: their parameters, without flattening.
//
// The arithmetic is that of the ops, one folder each. Here tensors are cut into blocks of a fixed
// size, blocks are handed to threads, and their sums are added in the order of tensors and blocks:
// the same bits for any number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "matching/trajectory/trajectory.h"

namespace ddkern::matching {

// ||student - target||^2 and, where the tensors have a start, ||start - target||^2; else 0.
struct TrajectorySums {
  double to_target;
  double of_start;
};

// T is float or Bfloat16. At most n_threads threads, fewer where there is little to do.
template <class T>
TrajectorySums trajectory_sums(const std::vector<TrajectoryBlock<T>>& tensors, int n_threads);
// sum |student - target|
template <class T>
double absolute_sum(const std::vector<TrajectoryBlock<T>>& tensors, int n_threads);
template <class T>
void scaled_difference(const std::vector<DifferenceBlock<T>>& tensors, float factor, int n_threads);

}  // namespace ddkern::matching
