// SPDX-License-Identifier: Apache-2.0
// Bounds on the scores of every column (centroid), and how they follow from what was lost.
//
// A point x and a column c, both exact and centred; what the fast product sees is x^ and c^.
//   score = fl32(base + sum x^ * (-2 c^)),  base = fl32(||c||^2)
//   | <x^, c^> - <x, c> |     <= ||x - x^|| ||c|| + ||x^|| ||c - c^||
//   accumulation              <= gamma ||x^|| ||c^||,  gamma = n_roundings * 2^-24 (and a margin)
//   rounding of the base, of the last addition, and of the scan's own arithmetic: a few times 2^-24
//   of
//   ||c||^2 + 2 ||x^|| ||c^||
// so with p >= ||x - x^|| and q >= ||x^||:  E = p u + q v + e,
//   u = 2 ||c||,   v = 2 ||c - c^|| + (2 gamma + 2^-20) ||c^||,   e = 2^-20 ||c||^2 + tiny.
// For bytes the norms are weighted by segment (byte_layout.h): in p and v by 1 / weight, in q and u
// by weight, so that p u >= sum over segments of ||x - x^|| 2 ||c|| by Cauchy and Schwarz, and
// likewise q v.
// `tiny` covers products and partial sums flushed to zero.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace ddkern::kmeans {

struct ColumnBounds {
  std::vector<float> base;                   // [n_columns] what a product lacks to be a score
  std::vector<float> u, v, e;                // [n_columns]
  float most_u = 0, most_v = 0, most_e = 0;  // the largest
  bool any_wild = false;
  std::vector<char> wild;  // [n_columns] numbers outside float32's comfort: nothing is certain

  explicit ColumnBounds(std::int64_t n_columns)
      : base(static_cast<std::size_t>(n_columns)), u(base), v(base), e(base),
        wild(static_cast<std::size_t>(n_columns)) {}

  void set(std::int64_t k, double u_k, double v_k, double e_k) {
    constexpr double kUp = 1 + 0x1p-12;
    u[k] = static_cast<float>(u_k * kUp);
    v[k] = static_cast<float>(v_k * kUp);
    e[k] = static_cast<float>(e_k * kUp + 0x1p-96);
    wild[k] = !(u_k < 0x1p40 && v_k < 0x1p40 && e_k < 0x1p80);
  }
  // Column k is column `from` of `other`.
  void copy(std::int64_t k, const ColumnBounds& other, std::int64_t from) {
    base[k] = other.base[from];
    u[k] = other.u[from];
    v[k] = other.v[from];
    e[k] = other.e[from];
    wild[k] = other.wild[from];
  }
  // After a round of set(), which may run on several threads for different columns.
  void settle() {
    any_wild = std::find(wild.begin(), wild.end(), 1) != wild.end();
    most_u = *std::max_element(u.begin(), u.end());
    most_v = *std::max_element(v.begin(), v.end());
    most_e = *std::max_element(e.begin(), e.end());
  }
};

inline double accumulation_bound(std::int64_t n_features, double n_roundings_per_product) {
  return (static_cast<double>(n_features) * n_roundings_per_product + 8) * 0x1.01p-24;
}

}  // namespace ddkern::kmeans
