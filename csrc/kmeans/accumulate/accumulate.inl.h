// SPDX-License-Identifier: Apache-2.0
// The body of accumulate. Internal linkage only.
#pragma once

#include "core/simd/round.h"
#include "kmeans/accumulate/accumulate.h"

namespace {

using namespace ddkern::simd;

template <bool kWeighted>
inline i64x8 addend(const f64x8& v, double weight) {
  if constexpr (!kWeighted) return round_f64x8(v);
  const f64x8 q = (v + kRound) - kRound;
  return round_wide_f64x8(q * weight);
}
template <bool kWeighted>
inline std::int64_t addend(double v, double weight) {
  if constexpr (!kWeighted) return round_f64(v);
  const double q = (v + kRound) - kRound;
  return round_wide_f64(q * weight);
}

// to += addends, and from -= addends where given.
template <bool kWeighted, bool kMove, class T>
inline void transfer(const T* row, double scale, const double* shift, std::int64_t n, double weight,
                     std::int64_t* from, std::int64_t* to) {
  std::int64_t j = 0;
  for (; j + 8 <= n; j += 8) {
    const i64x8 a = addend<kWeighted>(load_f64x8(row + j) * scale - load<f64x8>(shift + j), weight);
    store(to + j, load<i64x8>(to + j) + a);
    if constexpr (kMove) store(from + j, load<i64x8>(from + j) - a);
  }
  for (; j < n; ++j) {
    const std::int64_t a =
        addend<kWeighted>(static_cast<double>(row[j]) * scale - shift[j], weight);
    to[j] += a;
    if constexpr (kMove) from[j] -= a;
  }
}

template <class T>
void add(const T* row, double scale, const double* shift, std::int64_t n, double weight,
         std::int64_t* sum) noexcept {
  // A weight of 1 needs no product: w * q is q.
  if (weight == 1) {
    transfer<false, false>(row, scale, shift, n, weight, nullptr, sum);
  } else {
    transfer<true, false>(row, scale, shift, n, weight, nullptr, sum);
  }
}

template <class T>
void move(const T* row, double scale, const double* shift, std::int64_t n, double weight,
          std::int64_t* from, std::int64_t* to) noexcept {
  if (weight == 1) {
    transfer<false, true>(row, scale, shift, n, weight, from, to);
  } else {
    transfer<true, true>(row, scale, shift, n, weight, from, to);
  }
}

template <class T>
void finish(const std::int64_t* sum, double total, double factor, const T* centre, double unscale,
            std::int64_t n, double* means, T* centroid) noexcept {
  for (std::int64_t j = 0; j < n; ++j) {
    const double mean = static_cast<double>(sum[j]) / total * factor;
    if (means != nullptr) means[j] = mean;
    centroid[j] = static_cast<T>((mean + static_cast<double>(centre[j])) * unscale);
  }
}

}  // namespace
