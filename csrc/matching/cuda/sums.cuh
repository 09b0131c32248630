// SPDX-License-Identifier: Apache-2.0
// Sums over lists of values in the order of matching/trajectory/trajectory.h: 32 chains a block of
// values, which are the lanes of a warp, and then the blocks.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/cuda/reduce.cuh"
#include "core/cuda/values.cuh"
#include "matching/trajectory/trajectory.h"

namespace ddkern::matching::cuda {
namespace {

using ddkern::cuda::kAllLanes;
using ddkern::cuda::kWarp;

constexpr int kSumThreads = 256;
constexpr int kSumWarps = kSumThreads / kWarp;
// Values 32 r to 32 r + 31 of a block are its row r: one value of every chain.
constexpr int kSumRows = 32;  // of a stage
constexpr int kRowsAWarp = kSumRows / kSumWarps;
static_assert(kTrajectoryChains == kWarp, "a lane is a chain");
static_assert(kTrajectoryBlock % (kSumRows * kWarp) == 0);

// Rows of all lists, from row `row` on, kSumWarps apart; 0 beyond the end.
template <class T, int kLists>
__device__ __forceinline__ void load_rows(const T* const (&lists)[kLists], int row, int n,
                                          T (&values)[kRowsAWarp][kLists]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int list = 0; list < kLists; ++list) {
#pragma unroll
    for (int r = 0; r < kRowsAWarp; ++r) {
      const int i = (row + r * kSumWarps) * kWarp + lane;
      values[r][list] = i < n ? lists[list][i] : T{};
    }
  }
}

// Sums of a block of n values, by kSumThreads threads: warp s has sum s, and those after the last
// have 0. Term::of() makes kSums terms of a value of each list, and 0 of zeros.
//
// All warps load and make terms; a chain has to be added in order, so one warp a sum does that, out
// of shared memory, while the next rows are on their way.
template <class Term, class T, int kLists>
__device__ __forceinline__ double sum_block(const T* const (&lists)[kLists], int n) {
  __shared__ double terms[2][Term::kSums][kSumRows][kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  T values[kRowsAWarp][kLists];
  load_rows(lists, warp, n, values);
  double sum = 0;
  for (int first = 0, buffer = 0; first * kWarp < n; first += kSumRows, buffer ^= 1) {
#pragma unroll
    for (int r = 0; r < kRowsAWarp; ++r) {
      double wide[kLists], of_row[Term::kSums];
#pragma unroll
      for (int list = 0; list < kLists; ++list) {
        wide[list] = static_cast<double>(ddkern::cuda::to_float(values[r][list]));
      }
      Term::of(wide, of_row);
#pragma unroll
      for (int s = 0; s < Term::kSums; ++s) {
        terms[buffer][s][warp + r * kSumWarps][lane] = of_row[s];
      }
    }
    load_rows(lists, first + kSumRows + warp, n, values);
    // The only one a stage: who is past it has read the other buffer.
    __syncthreads();
    if (warp < Term::kSums) {
#pragma unroll 8
      for (int row = 0; row < kSumRows; ++row) sum += terms[buffer][warp][row][lane];
    }
  }
  return ddkern::cuda::warp_reduce(sum, ddkern::cuda::Sum{});
}

// The same sums by one warp, whose lanes all have them: for so few values that threads would wait
// for each other more than they load.
template <class Term, class T, int kLists>
__device__ __forceinline__ void sum_by_warp(const T* const (&lists)[kLists], int n,
                                            double (&sums)[Term::kSums]) {
  constexpr int kRowsAhead = 8;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int s = 0; s < Term::kSums; ++s) sums[s] = 0;
  for (int first = 0; first < n; first += kRowsAhead * kWarp) {
    T values[kRowsAhead][kLists];
#pragma unroll
    for (int list = 0; list < kLists; ++list) {
#pragma unroll
      for (int r = 0; r < kRowsAhead; ++r) {
        const int i = first + r * kWarp + lane;
        values[r][list] = i < n ? lists[list][i] : T{};
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsAhead; ++r) {
      double wide[kLists], of_row[Term::kSums];
#pragma unroll
      for (int list = 0; list < kLists; ++list) {
        wide[list] = static_cast<double>(ddkern::cuda::to_float(values[r][list]));
      }
      Term::of(wide, of_row);
#pragma unroll
      for (int s = 0; s < Term::kSums; ++s) sums[s] += of_row[s];
    }
  }
#pragma unroll
  for (int s = 0; s < Term::kSums; ++s) {
    sums[s] = ddkern::cuda::warp_reduce(sums[s], ddkern::cuda::Sum{});
  }
}

// The sum of n values in their order, by a warp; all lanes have it.
__device__ __forceinline__ double sum_in_order(const double* values, std::int64_t n) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  double total = 0, next = lane < n ? values[lane] : 0;
  for (std::int64_t first = 0; first < n; first += kWarp) {
    const double mine = next;
    const std::int64_t i = first + kWarp + lane;
    next = i < n ? values[i] : 0;
#pragma unroll
    for (int l = 0; l < kWarp; ++l) total += __shfl_sync(kAllLanes, mine, l);
  }
  return total;
}

constexpr int kTotalThreads = 64;
constexpr int kTotalsABlock = kTotalThreads / kWarp;

// Which of the warps of a grid of kTotalThreads this is.
__device__ __forceinline__ int total_of_warp() {
  return static_cast<int>(blockIdx.x * kTotalsABlock + threadIdx.x / kWarp);
}

inline unsigned total_blocks(std::int64_t n_totals) {
  return static_cast<unsigned>((n_totals + kTotalsABlock - 1) / kTotalsABlock);
}

}  // namespace
}  // namespace ddkern::matching::cuda
