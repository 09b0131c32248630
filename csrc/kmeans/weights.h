// SPDX-License-Identifier: Apache-2.0
// The integer masses of a group's rows (docs/numerics.md section 2).
#pragma once

#include <cstdint>
#include <vector>

namespace ddkern::kmeans {

struct Weights {
  std::vector<std::int64_t> units;  // [n], empty without weights: 1 each
  std::vector<double> canonical;    // [n], empty without weights: 1 each
  std::int64_t total_units = 0, n_positive = 0;
  double total_weight = 0;  // in the caller's units
  int grid_bits = 40;       // t
};

// sample_weight is indexed by row number, or null. rows [n] are row numbers, or null for first_row,
// first_row + 1, ...
Weights canonical_weights(const double* sample_weight, const std::int64_t* rows,
                          std::int64_t first_row, std::int64_t n);

}  // namespace ddkern::kmeans
