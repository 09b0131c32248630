// SPDX-License-Identifier: Apache-2.0
#include "kmeans/margins.h"

#include <algorithm>
#include <utility>

namespace ddkern::kmeans {
namespace {

std::int64_t padded(std::int64_t n_columns) {
  return (n_columns + kMarginsPadding - 1) / kMarginsPadding * kMarginsPadding;
}

float round_up(double v) { return static_cast<float>(v * (1 + 0x1p-22)); }

}  // namespace

Margins::Margins(std::vector<float> sq_norms, std::int64_t n_columns)
    : stride_(padded(n_columns)), sq_norms_(std::move(sq_norms)),
      margins_(static_cast<std::int64_t>(sq_norms_.size()) / kHalfBlock * stride_),
      travelled_near_(sq_norms_.size() / kHalfBlock, 0.0),
      travelled_exact_(static_cast<std::size_t>(n_columns), 0.0),
      travelled_(static_cast<std::size_t>(stride_), 0.0f),
      shifts_(static_cast<std::size_t>(n_columns), 0.0) {
  std::fill(margins_.data(), margins_.data() + margins_.size(), -1.0f);
}

std::int64_t Margins::bytes(std::int64_t n_points, std::int64_t n_columns) {
  const std::int64_t n_halves = 2 * n_blocks_of(n_points);
  return n_halves * (padded(n_columns) + kHalfBlock) * 4 + n_halves * 8;
}

void Margins::advance(const std::vector<double>& shifts) {
  shifts_ = shifts;
  for (std::size_t k = 0; k < shifts.size(); ++k) {
    travelled_exact_[k] += shifts[k];
    travelled_[k] = round_up(travelled_exact_[k]);
  }
}

MarginArgs Margins::follow(std::int64_t half, const std::int32_t* near, int n_points) {
  double farthest = 0;
  for (int p = 0; p < n_points; ++p) {
    farthest = std::max(farthest, shifts_[static_cast<std::size_t>(near[p])]);
  }
  double& travelled = travelled_near_[static_cast<std::size_t>(half)];
  travelled += farthest;
  return {margins_.data() + half * stride_, travelled_.data(), round_up(travelled)};
}

}  // namespace ddkern::kmeans
