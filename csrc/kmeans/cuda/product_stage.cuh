// SPDX-License-Identifier: Apache-2.0
// Where packed rows lie in shared memory, a stage of features at a time.
#pragma once

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

constexpr int kDepth = kPadding;     // features of a stage
constexpr int kChunks = kDepth / 8;  // of 16 bytes a row and stage

// Where chunk c of row r lies in a stage: no two of the eight rows that a matrix load touches share
// a bank. It is what the 128-byte swizzle of Hopper's matrix descriptors means.
inline __device__ int swizzled(int row, int chunk) {
  return (row * kChunks + (chunk ^ (row & (kChunks - 1)))) * 16;
}

}  // namespace ddkern::kmeans::cuda
