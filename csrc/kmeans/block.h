// SPDX-License-Identifier: Apache-2.0
// The two layouts every kernel speaks.
//
// Point block: kBlockPoints rows side by side, feature by feature, so that one vector register
// holds one feature of many points and a broadcast holds one feature of one centroid:
//   float32   [n_features][kBlockPoints] floats
//   bfloat16  [ceil(n_features / 2)][kBlockPoints] words, a word = features 2d (low half) and 2d +
//   1
//
// Column tile: up to kTileColumns centroids (or seeding candidates) interleaved the same way:
//   float32   [n_features][width] floats          bfloat16  [ceil(n_features / 2)][width] words
#pragma once

#include <cstdint>

namespace ddkern::kmeans {

constexpr int kBlockPoints = 32;
constexpr int kTileColumns = 12;

inline std::int64_t n_blocks_of(std::int64_t n_points) {
  return (n_points + kBlockPoints - 1) / kBlockPoints;
}

}  // namespace ddkern::kmeans
