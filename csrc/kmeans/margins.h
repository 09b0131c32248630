// SPDX-License-Identifier: Apache-2.0
// How much farther every column is, at least, than the nearest one, for the points of half a block:
// what rules columns out in later passes without a product (the lower bounds of Elkan, ICML 2003,
// one for 16 points).
//
// A margin is found in one pass: min over points of d(x, c_k) - d(x, c_near). It holds until the
// columns have moved by as much (triangle inequality), and it only grows when a point finds another
// nearest column. So it is stored together with how far both had gone by then, and nothing is
// touched until column k is looked at again.
#pragma once

#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "kmeans/block.h"
#include "kmeans/shortlist/shortlist.h"

namespace ddkern::kmeans {

class Margins {
 public:
  // Nothing is known yet. sq_norms [n_blocks * kBlockPoints]: at least ||y||^2 of every point.
  Margins(std::vector<float> sq_norms, std::int64_t n_columns);
  static std::int64_t bytes(std::int64_t n_points, std::int64_t n_columns);

  // Before a pass: columns moved by `shifts` [n_columns], none of them by less.
  void advance(const std::vector<double>& shifts);

  // Half a block, counted from the first, in every pass once: it goes along with `near` [n_points],
  // the nearest column of every point before the columns moved.
  MarginArgs follow(std::int64_t half, const std::int32_t* near, int n_points);

  const float* sq_norms(std::int64_t half) const { return sq_norms_.data() + half * kHalfBlock; }

 private:
  std::int64_t stride_;
  std::vector<float> sq_norms_;          // [n_halves][kHalfBlock]
  Buffer<float> margins_;                // [n_halves][stride_]
  std::vector<double> travelled_near_;   // [n_halves]
  std::vector<double> travelled_exact_;  // [n_columns]
  std::vector<float> travelled_;         // [stride_] the same, rounded up
  std::vector<double> shifts_;           // [n_columns] of the last step
};

}  // namespace ddkern::kmeans
