// SPDX-License-Identifier: Apache-2.0
// distance: the squared distance of two stored points, in float64, from their difference.
//
//   p[l] = 0;  for j ascending: r = a[j] * scale - b[j] * scale;  p[j mod 16] += r * r
//   then the tree of add_16_lanes                             (docs/numerics.md section 6: d64)
//
// The same bits at every level; no FMA. The relative error is at most `relative_error(n_features)`,
// as long as nothing underflows (kSmallestCertain).
//
// `quick` is the same distance in float32 and unscaled, for comparisons that can do with its error:
// relative quick_error(n_features) and absolute n_features * kQuickUnderflow.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace ddkern::kmeans {

struct DistanceOps {
  double (*f32)(const float* a, const float* b, double scale, std::int64_t n) noexcept;
  double (*f64)(const double* a, const double* b, double scale, std::int64_t n) noexcept;
  // To several rows at once: a is read once, and `next` [n] is brought into cache on the way. out
  // [n_b].
  void (*quick)(const float* a, const float* const* b, int n_b, std::int64_t n, const float* next,
                float* out) noexcept;
  // Sum of v^2 in the same order, for vectors that are already float64.
  double (*sq_norm)(const double* v, std::int64_t n) noexcept;
  // Sum of (a * scale - centre)^2 in the same order.
  double (*centred_f32)(const float* a, const float* centre, double scale, std::int64_t n) noexcept;
  double (*centred_f64)(const double* a, const double* centre, double scale,
                        std::int64_t n) noexcept;

  double centred_sq_norm(const float* a, const float* centre, double scale, std::int64_t n) const {
    return centred_f32(a, centre, scale, n);
  }
  double centred_sq_norm(const double* a, const double* centre, double scale,
                         std::int64_t n) const {
    return centred_f64(a, centre, scale, n);
  }

  // Of `quick`: three roundings a term, then the longest chain of additions (up to four beyond an
  // even share) and the tree.
  int n_quick_chains;
  double quick_error(std::int64_t n_features) const {
    return (static_cast<double>(n_features) / n_quick_chains + 16) * 0x1.1p-24;
  }

  double operator()(const float* a, const float* b, double scale, std::int64_t n) const {
    return f32(a, b, scale, n);
  }
  double operator()(const double* a, const double* b, double scale, std::int64_t n) const {
    return f64(a, b, scale, n);
  }
};

// Of d64: two roundings in r (doubled by the square), one in the product, the longest chain of
// additions, and a margin for the bound's own arithmetic.
inline double relative_error(std::int64_t n_features) {
  return (static_cast<double>(n_features) / 16 + 16) * 0x1.1p-53;
}
constexpr double kQuickUnderflow = 0x1p-126;
// Below this, a square may have underflowed on the way and only exact arithmetic may decide.
constexpr double kSmallestCertain = 0x1p-900;

extern const DistanceOps distance_base;
extern const DistanceOps distance_avx2;
extern const DistanceOps distance_avx512;

const DistanceOps& distance_ops(Isa isa);

}  // namespace ddkern::kmeans
