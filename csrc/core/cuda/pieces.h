// SPDX-License-Identifier: Apache-2.0
// Lists of tensors in pieces of one size, one thread block each, and the launches that this takes.
// Pure functions of sizes: they run without a device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace ddkern::cuda {

// Tensors that one launch can name. Pointers travel as arguments of the kernel, which needs no
// upload and no memory, and stays valid in a captured graph; the small table is for the networks of
// small images, where 1 KB of arguments is sooner sent than 9.
inline constexpr int kSmallTable = 32, kLargeTable = 256;

// Tensors [first, last) of a list; pieces are numbered over the whole list.
struct PieceLaunch {
  std::int64_t first, last;
  std::int64_t first_piece, n_pieces;
  int capacity;  // of its table
};

// Pieces do not go past the end of a tensor.
inline std::int64_t pieces_of(std::int64_t n, std::int64_t piece) {
  return (n + piece - 1) / piece;
}

inline std::int64_t count_pieces(const std::vector<std::int64_t>& sizes, std::int64_t piece) {
  std::int64_t count = 0;
  for (const std::int64_t n : sizes) count += pieces_of(n, piece);
  return count;
}

// As few launches as possible, and none without pieces.
inline std::vector<PieceLaunch> plan_pieces(const std::vector<std::int64_t>& sizes,
                                            std::int64_t piece) {
  std::vector<PieceLaunch> launches;
  const auto n_tensors = static_cast<std::int64_t>(sizes.size());
  std::int64_t first_piece = 0;
  for (std::int64_t first = 0; first < n_tensors; first += kLargeTable) {
    const std::int64_t last = std::min<std::int64_t>(first + kLargeTable, n_tensors);
    std::int64_t n_pieces = 0;
    for (std::int64_t i = first; i < last; ++i) n_pieces += pieces_of(sizes[i], piece);
    const int capacity = last - first <= kSmallTable ? kSmallTable : kLargeTable;
    if (n_pieces > 0) launches.push_back({first, last, first_piece, n_pieces, capacity});
    first_piece += n_pieces;
  }
  return launches;
}

}  // namespace ddkern::cuda
