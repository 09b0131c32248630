// SPDX-License-Identifier: Apache-2.0
// The weighted mean of a non-negative value over a group, from an exact sum on a grid that the
// largest value fixes (docs/numerics.md sections 4, 9 and 10).
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/simd/round.h"
#include "kmeans/group.h"

namespace ddkern::kmeans {

// The exponent of the grid for distances up to `largest`. Smaller ones than 2^-900, which only
// float64 data can have, count as 0: a finer grid would overflow on its way there.
inline int grid_exponent(double largest) {
  int exponent = 0;
  if (largest != 0) std::frexp(largest, &exponent);
  return std::max(exponent, -900);
}

template <class T>
double weighted_mean(const Group<T>& group, const std::vector<double>& values) {
  double largest = 0;
  for (std::int64_t i = 0; i < group.n(); ++i) {
    if (group.counts(i)) largest = std::max(largest, values[i]);
  }
  const int exponent = grid_exponent(largest);
  const double unit = std::ldexp(1.0, group.grid_bits() - exponent);
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < group.n(); ++i) {
    if (!group.counts(i)) continue;
    const std::int64_t q = simd::round_f64(values[i] * unit);
    sum += group.weighted() ? simd::round_wide_f64(static_cast<double>(q) * group.weight(i)) : q;
  }
  return static_cast<double>(sum) / static_cast<double>(group.total_units()) * group.mean_factor() *
         std::ldexp(1.0, exponent - group.grid_bits());
}

}  // namespace ddkern::kmeans
