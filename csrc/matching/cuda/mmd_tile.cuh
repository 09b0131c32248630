// SPDX-License-Identifier: Apache-2.0
// What the kernels of mmd share: the squared distances of a tile of points, and the exponential, as
// matching/mmd/mmd.h defines them.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/cuda/launch.h"
#include "core/cuda/values.cuh"
#include "matching/cuda/distribution.h"

namespace ddkern::matching::cuda {
namespace {

// exp(t) for t <= 0. A product that a sum follows is rounded by itself, and the order is that of
// the CPU.
__device__ __forceinline__ double exponential(double t) {
  constexpr double kLog2E = 0x1.71547652b82fep+0;
  constexpr double kLog2High = 0x1.62e42feep-1, kLog2Low = 0x1.a39ef35793c76p-33;
  constexpr double kLeast = -708, kRound = 0x1.8p52;
  constexpr double kInverseFactorials[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
      1.0 / 5040,       1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      1.0 / 2};
  const double bounded = t < kLeast ? kLeast : t;
  const double shifted = __dadd_rn(__dmul_rn(bounded, kLog2E), kRound), n = shifted - kRound;
  const double r = __dsub_rn(__dsub_rn(bounded, __dmul_rn(n, kLog2High)), __dmul_rn(n, kLog2Low));
  double p = __dmul_rn(r, kInverseFactorials[0]);
#pragma unroll
  for (int i = 1; i < 12; ++i) p = __dmul_rn(__dadd_rn(p, kInverseFactorials[i]), r);
  p = __dadd_rn(__dmul_rn(__dadd_rn(p, 1.0), r), 1.0);
  const auto steps = static_cast<unsigned long long>(__double_as_longlong(shifted)) -
                     static_cast<unsigned long long>(__double_as_longlong(kRound));
  const double power = __longlong_as_double(static_cast<long long>((steps + 1023) << 52));
  return t < kLeast ? 0.0 : __dmul_rn(p, power);
}

// Sums over the rates for several squared distances at once, whose chains of operations run side by
// side. kWeighted: each exponential times its rate.
template <bool kWeighted, int kAtOnce>
__device__ __forceinline__ void sum_kernels(const Rates& rates, const double (&squares)[kAtOnce],
                                            double (&values)[kAtOnce]) {
  const double* const all = rates.at == nullptr ? rates.value : rates.at;
#pragma unroll
  for (int v = 0; v < kAtOnce; ++v) values[v] = 0;
#pragma unroll 1
  for (int s = 0; s < rates.n; ++s) {
    const double rate = all[s];
#pragma unroll
    for (int v = 0; v < kAtOnce; ++v) {
      const double value = exponential(__dmul_rn(squares[v], -rate));
      values[v] = __dadd_rn(values[v], kWeighted ? __dmul_rn(rate, value) : value);
    }
  }
}

// A tile of kSide by kSide points; a thread has kRows_ by kColumns_ of their products, and fetches
// one point, kDepth_ features at a time.
template <int kSide_, int kRows_, int kColumns_, int kDepth_>
struct Tile {
  static constexpr int kSide = kSide_, kRows = kRows_, kColumns = kColumns_, kDepth = kDepth_;
  static constexpr int kThreads = 2 * kSide;
  static constexpr int kPanels = kSide / kPanel;
  // Of a row of squares: odd, so that columns are read without conflicts as well.
  static constexpr int kPitch = kSide + 1;
  static constexpr int kOperands = 2 * kDepth * kThreads;  // two stages
  static constexpr int kSquares = kSide * kPitch;
  static constexpr int kShared = kOperands > kSquares ? kOperands : kSquares;
  static_assert(kThreads * kRows * kColumns == kSide * kSide && kColumns % 2 == 0);
  static_assert(kSide % kPanel == 0 && kRows % 2 == 0 && kDepth % 4 == 0);
};

// Features [first, first + kDepth) of a row of n; 0 beyond the end.
template <int kDepth>
__device__ __forceinline__ void load_features(const float* row, std::int64_t first, std::int64_t n,
                                              bool aligned, float (&values)[kDepth]) {
  using Values = ddkern::cuda::Pack<float>;
  if (aligned && first + kDepth <= n) {
#pragma unroll
    for (int p = 0; p < kDepth / Values::kValues; ++p) {
      const Values pack = reinterpret_cast<const Values*>(row + first)[p];
#pragma unroll
      for (int v = 0; v < Values::kValues; ++v) values[p * Values::kValues + v] = pack.value[v];
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kDepth; ++k) values[k] = first + k < n ? row[first + k] : 0.0f;
}

// The squared distances of the points of x from first_x on from those of y from first_y on, into
// `memory` [kSide][kPitch]. Points that a set lacks are 0, with an infinite norm. By all threads of
// the block, at a place that they reach once.
//
// A point is one thread's: it has the features in their order, so that it can add the norm up on
// the way.
template <class Tile>
__device__ __forceinline__ void tile_squares(const PointSet& x, std::int64_t first_x,
                                             const PointSet& y, std::int64_t first_y,
                                             std::int64_t n_features,
                                             double (&memory)[Tile::kShared]) {
  constexpr int kSide = Tile::kSide, kThreads = Tile::kThreads, kDepth = Tile::kDepth;
  constexpr int kGroups = kSide / Tile::kColumns;
  __shared__ double norms[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const bool of_x = thread < kSide;
  const std::int64_t point = of_x ? first_x + thread : first_y + (thread - kSide);
  const bool exists = point < (of_x ? x.n : y.n);
  const float* const mine = (of_x ? x.rows : y.rows) + (exists ? point : 0) * n_features;
  const std::int64_t n = exists ? n_features : 0;
  const bool aligned = ddkern::cuda::is_aligned(mine);

  // Columns of a thread come in pairs, one load each.
  const int row = thread / kGroups * Tile::kRows, column = thread % kGroups * 2;
  double products[Tile::kRows][Tile::kColumns] = {};
  float next[kDepth];
  load_features(mine, 0, n, aligned, next);
  double norm = 0;
  int stage = 0;
  for (std::int64_t first = 0; first < n_features; first += kDepth, stage ^= 1) {
    double* const values = memory + stage * (kDepth * kThreads);  // [kDepth][kThreads]
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const auto value = static_cast<double>(next[k]);
      norm = __fma_rn(value, value, norm);
      values[k * kThreads + thread] = value;
    }
    load_features(mine, first + kDepth, n, aligned, next);
    // The only one a stage: who is past it has read the other one.
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kDepth; ++k) {
      const double* const from_x = values + k * kThreads + row;
      const double* const from_y = values + k * kThreads + kSide + column;
      double u[Tile::kRows], v[Tile::kColumns];
#pragma unroll
      for (int r = 0; r < Tile::kRows; r += 2) {
        const double2 two = *reinterpret_cast<const double2*>(from_x + r);
        u[r] = two.x;
        u[r + 1] = two.y;
      }
#pragma unroll
      for (int c = 0; c < Tile::kColumns; c += 2) {
        const double2 two = *reinterpret_cast<const double2*>(from_y + c * kGroups);
        v[c] = two.x;
        v[c + 1] = two.y;
      }
#pragma unroll
      for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
        for (int c = 0; c < Tile::kColumns; ++c) {
          // The product is exact: fused or not, it is rounded once.
          products[r][c] = __fma_rn(u[r], v[c], products[r][c]);
        }
      }
    }
  }
  norms[thread] = exists ? norm : static_cast<double>(INFINITY);
  __syncthreads();
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
    for (int c = 0; c < Tile::kColumns; ++c) {
      const int at = c / 2 * 2 * kGroups + column + c % 2;
      const double square =
          __dsub_rn(__dadd_rn(norms[row + r], norms[kSide + at]), 2.0 * products[r][c]);
      memory[(row + r) * Tile::kPitch + at] = square < 0 ? 0.0 : square;
    }
  }
  __syncthreads();
}

}  // namespace
}  // namespace ddkern::matching::cuda
