// SPDX-License-Identifier: Apache-2.0
// mmd: a sum of Gaussian kernels over all pairs of two sets of points; one panel of points against
// another.
//
//   D(x, y) = max(0, |x|^2 + |y|^2 - 2 <x, y>),   K(x, y) = sum_s exp(-rates[s] * D(x, y))
//   sum:  sum over points x and y of the panels of K(x, y)
//   pull: out[x] += factor * sum over y of W(x, y) (x - y),  W = sum_s rates[s] exp(-rates[s] * D)
//         which with factor -2 is the derivative by x of sum_y K(x, y)
//
// A panel is up to 16 points, feature by feature, in float64 (pack). Points that it lacks are 0
// with an infinite norm: they are infinitely far from everything, and count nothing.
//
// Numerics. Points are float32, all else is float64. Products of two values are exact, so that a
// fused multiply-add rounds as the two operations do; norms and products are one chain in the order
// of features, so D(x, x) is exactly 0 and the error of D is below
// n_features * 2^-51 * (|x|^2 + |y|^2). The exponential is within 2 units in the last place, and 0
// below exp(-708). Rates are summed in their order, pairs of a panel in 16 chains by y that are
// added pairwise, terms of `pull` in the order of y; nothing else is fused. The bits are the same
// at every level. A point with a NaN makes NaN of all its pairs, one with an infinity of that with
// itself.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace ddkern::matching {

constexpr int kPanel = 16;  // points of a panel

struct Panel {
  std::int64_t n;        // points, at most kPanel
  const float* rows;     // [n, n_features]
  const double* values;  // [n_features, kPanel]
  const double* norms;   // [kPanel], squared
};

struct MmdKernel {
  std::int64_t n_features;
  std::int64_t n_rates;
  const double* rates;  // [n_rates]
};

struct MmdOps {
  void (*pack)(std::int64_t n, std::int64_t n_features, const float* rows, double* values,
               double* norms) noexcept;
  double (*sum)(const MmdKernel& kernel, const Panel& x, const Panel& y) noexcept;
  // out: [x.n, n_features]
  void (*pull)(const MmdKernel& kernel, const Panel& x, const Panel& y, double factor,
               double* out) noexcept;
};

extern const MmdOps mmd_base;
extern const MmdOps mmd_avx2;
extern const MmdOps mmd_avx512;

const MmdOps& mmd_ops(Isa isa);

}  // namespace ddkern::matching
