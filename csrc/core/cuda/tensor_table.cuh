// SPDX-License-Identifier: Apache-2.0
// A list of tensors as an argument of a kernel, and which piece of which tensor a block has.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/cuda/launch.h"
#include "core/cuda/pieces.h"

namespace ddkern::cuda {

template <class T, int kPointers, int kCapacity>
struct TensorTable {
  T* at[kPointers][kCapacity];
  std::int64_t n[kCapacity];
  std::int32_t first_piece[kCapacity];  // of the launch
  std::int32_t n_tensors;
};

struct Piece {
  int tensor;
  int n;  // values, of the piece
  std::int64_t first;
};

template <class T, int kPointers, int kCapacity>
__device__ __forceinline__ Piece find_piece(const TensorTable<T, kPointers, kCapacity>& table,
                                            int size) {
  const auto piece = static_cast<std::int32_t>(blockIdx.x);
  // The last tensor that begins here or before; those without values begin where the next one does.
  int low = 0, high = table.n_tensors;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.first_piece[middle] <= piece) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const std::int64_t first = static_cast<std::int64_t>(piece - table.first_piece[low]) * size;
  const std::int64_t rest = table.n[low] - first;
  return {low, rest < size ? static_cast<int>(rest) : size, first};
}

// run(table, launch) for every launch; pointers(i) gives those of tensor i, an array<T*>.
template <class T, int kPointers, int kCapacity, class Pointers, class Run>
void run_launch(const std::vector<std::int64_t>& sizes, std::int64_t piece,
                const PieceLaunch& launch, const Pointers& pointers, const Run& run) {
  TensorTable<T, kPointers, kCapacity> table = {};
  std::int64_t next = 0;
  for (std::int64_t i = launch.first; i < launch.last; ++i) {
    const std::int64_t slot = i - launch.first;
    const std::array<T*, kPointers> of = pointers(i);
    for (int p = 0; p < kPointers; ++p) table.at[p][slot] = of[p];
    table.n[slot] = sizes[i];
    table.first_piece[slot] = static_cast<std::int32_t>(next);
    next += pieces_of(sizes[i], piece);
  }
  table.n_tensors = static_cast<std::int32_t>(launch.last - launch.first);
  run(table, launch);
}

template <class T, int kPointers, class Pointers, class Run>
void launch_pieces(const std::vector<std::int64_t>& sizes, std::int64_t piece,
                   const Pointers& pointers, const Run& run) {
  for (const PieceLaunch& launch : plan_pieces(sizes, piece)) {
    if (launch.capacity == kSmallTable) {
      run_launch<T, kPointers, kSmallTable>(sizes, piece, launch, pointers, run);
    } else {
      run_launch<T, kPointers, kLargeTable>(sizes, piece, launch, pointers, run);
    }
  }
}

}  // namespace ddkern::cuda
