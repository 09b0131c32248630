// SPDX-License-Identifier: Apache-2.0
// The two layouts every kernel speaks.
//
// Point block: kBlockPoints rows side by side, feature by feature, so that one vector register
// holds one feature of many points and a broadcast holds one feature of one centroid:
//   float32   [n_features][kBlockPoints] floats
//   bfloat16  [ceil(n_features / 2)][kBlockPoints] words, a word = features 2d (low half) and 2d +
//   1
//
// Column (a centroid or a seeding candidate): its features in a row, floats, or words of two
// bfloat16. A product takes up to kTileColumns of them at once.
#pragma once

#include <cstdint>

namespace ddkern::kmeans {

constexpr int kBlockPoints = 32;
constexpr int kHalfBlock = 16;  // the unit in which columns are ruled out
constexpr int kTileColumns = 12;

// The distance between columns of `n` words in memory. A power of two would put the same feature of
// all columns into one set of the first cache; an odd number of lines spreads them.
inline std::int64_t apart(std::int64_t n) {
  const std::int64_t lines = (n + 15) / 16;
  return (lines | 1) * 16;
}

inline std::int64_t n_blocks_of(std::int64_t n_points) {
  return (n_points + kBlockPoints - 1) / kBlockPoints;
}

}  // namespace ddkern::kmeans
