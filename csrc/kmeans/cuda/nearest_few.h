// SPDX-License-Identifier: Apache-2.0
// The nearest few cells of every row, in order of distance in real arithmetic, ties by index.
//
// Scores with proven bounds leave a row a short list: the columns whose lower bound is not above an
// upper bound that n_nearest columns keep to. These are inserted one by one into the list of the
// nearest so far, by comparisons of float64 distances with their bound; rows that meet a pair which
// these cannot tell apart are done again, with real arithmetic for such pairs.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

// How many rows are in work at a time: enough for any device, and few enough that what they keep
// [n_nearest] stays small. A multiple of kRankedABlock.
constexpr int kRankedABlock = 4;
constexpr std::int64_t ranked_at_once(std::int64_t n_rows, std::int64_t n_nearest) {
  constexpr std::int64_t kFewest = 128, kMost = 8192, kEntries = std::int64_t{1} << 23;
  const std::int64_t most = std::min(kMost, std::max(kFewest, kEntries / n_nearest));
  return (std::min(n_rows, most) + kRankedABlock - 1) / kRankedABlock * kRankedABlock;
}

// Whether any group of a chunk has columns that scores could rule out.
constexpr bool ranking_needs_scores(std::int64_t most_k, std::int64_t n_nearest) {
  return most_k > n_nearest;
}

// For the rows of some tiles, whose scores are kept where they are needed: columns [row
// number][n_nearest]. `distances` [ranked_at_once() of at least these rows][n_nearest] is scratch.
template <class T>
void rank_cells(const Chunk<T>& chunk, int first_tile, int n_tiles, int n_nearest,
                std::int64_t* columns, double* distances, cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
