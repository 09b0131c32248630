// SPDX-License-Identifier: Apache-2.0
//
// Small kernels that show what the stand-in for CUDA gets right and which mistakes it catches.
// `bug` plants a mistake where a kernel has one to offer; kNone runs it as it should be.
#pragma once

#include <cstdint>

namespace ddkern::simt_checks {

enum class Bug : int {
  kNone = 0,
  kWriteOutside = 1,       // block_sums: one element past the end of `sums`
  kMissingBarrier = 2,     // block_sums: no barrier between the steps of the tree
  kDivergentBarrier = 3,   // block_sums: half of the threads skip a barrier
  kMissingLanes = 4,       // nearest_rows: lanes leave before a shuffle that names them
  kMissingWait = 5,        // tile_product: shared memory is read before the copies are waited for
  kSharedOverrun = 6,      // tile_product: a write past the dynamic shared memory
  kMissingWarpBarrier = 7  // warp_neighbours: lanes read what their neighbours have yet to write
};

// sums[b] = sum of x[256 b ... 256 b + 255]; total = the sum of all, by atomics.
void block_sums(const float* x, int n, float* sums, int n_sums, double* total, Bug bug);

// nearest[i] = argmin_j (x[i] - c[j])^2 over k values, the smallest j at ties; a warp a row.
void nearest_rows(const float* x, int n, const float* c, int k, int* nearest, Bug bug);

// d [m, n] = a [m, depth] b [n, depth]^T in f16 with float sums. Rows are f16 bits; depth is a
// multiple of 16, m and n are any.
void tile_product(const std::uint16_t* a, const std::uint16_t* b, int m, int n, int depth, float* d,
                  Bug bug);

// out[i] = x[i - 1] + x[i + 1] within each warp, 0 at its ends, by shared memory.
void warp_neighbours(const float* x, int n, float* out, Bug bug);

// What each of n values, a multiple of 64, gets from the warp and block functions: see the kernel
// for the kResults rows of `out` [kResults, n].
inline constexpr int kResults = 13;
void collectives(const int* x, int n, int* out);

}  // namespace ddkern::simt_checks
