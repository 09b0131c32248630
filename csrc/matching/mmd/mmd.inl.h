// SPDX-License-Identifier: Apache-2.0
// The body of mmd. Internal linkage only.
#pragma once

#include "core/simd/round.h"
#include "core/simd/vector.h"
#include "matching/mmd/mmd.h"

namespace {

using namespace ddkern::simd;
using ddkern::matching::kPanel;
using ddkern::matching::MmdKernel;
using ddkern::matching::Panel;

// Points of the first panel that are taken at a time, times registers of the second: enough chains
// to hide the latency of additions, and no more than there are registers for.
constexpr int kPoints = kDoubles == 8 ? 8 : 4;
constexpr int kColumns = 2;
static_assert(kPanel % kPoints == 0 && kPanel % (kColumns * kDoubles) == 0, "panels are filled");

// c + a * b for an exact product: fused or not, it is rounded once.
inline doubles add_exact_product(const doubles& c, const doubles& a, const doubles& b) {
#if defined(__AVX512F__)
  return (doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return c + a * b;
#endif
}

// exp(t) for t <= 0: Taylor's polynomial around the nearest multiple of log(2).
inline doubles exponential(const doubles& t) {
  // log(2) in two parts, of which the first has so few bits that its multiples are exact.
  constexpr double kLog2E = 0x1.71547652b82fep+0;
  constexpr double kLog2High = 0x1.62e42feep-1, kLog2Low = 0x1.a39ef35793c76p-33;
  constexpr double kLeast = -708;
  constexpr double kInverseFactorials[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
      1.0 / 5040,       1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      1.0 / 2};
  const doubles least = doubles{} + kLeast;
  const doubles bounded = t < least ? least : t;
  const doubles shifted = bounded * kLog2E + kRound, n = shifted - kRound;
  const doubles r = (bounded - n * kLog2High) - n * kLog2Low;
  doubles p = r * kInverseFactorials[0];
  for (int i = 1; i < 12; ++i) p = (p + kInverseFactorials[i]) * r;
  p = (p + 1.0) * r + 1.0;
  const doubles constant = doubles{} + kRound;
  const int64s power = (load<int64s>(&shifted) - load<int64s>(&constant) + 1023) << 52;
  const doubles value = p * load<doubles>(&power);
  return t < least ? doubles{} : value;
}

// The squared distances of all points of x from those of y.
inline void distances(std::int64_t n_features, const Panel& x, const Panel& y,
                      double (&squares)[kPanel][kPanel]) {
  for (int row = 0; row < x.n; row += kPoints) {
    for (int column = 0; column < kPanel; column += kColumns * kDoubles) {
      doubles dots[kPoints][kColumns] = {};
      for (std::int64_t k = 0; k < n_features; ++k) {
        const double* from_x = x.values + k * kPanel + row;
        const double* from_y = y.values + k * kPanel + column;
        doubles v[kColumns];
        for (int q = 0; q < kColumns; ++q) v[q] = load<doubles>(from_y + q * kDoubles);
        for (int p = 0; p < kPoints; ++p) {
          const doubles u = from_x[p] - doubles{};
          for (int q = 0; q < kColumns; ++q) dots[p][q] = add_exact_product(dots[p][q], u, v[q]);
        }
      }
      for (int p = 0; p < kPoints; ++p) {
        for (int q = 0; q < kColumns; ++q) {
          const int at = column + q * kDoubles;
          const doubles d = (x.norms[row + p] + load<doubles>(y.norms + at)) - 2.0 * dots[p][q];
          store(&squares[row + p][at], d < 0.0 ? doubles{} : d);
        }
      }
    }
  }
}

void pack(std::int64_t n, std::int64_t n_features, const float* rows, double* values,
          double* norms) noexcept {
  for (std::int64_t k = 0; k < n_features; ++k) {
    for (int i = 0; i < kPanel; ++i) {
      values[k * kPanel + i] = i < n ? static_cast<double>(rows[i * n_features + k]) : 0.0;
    }
  }
  doubles squares[kRegistersOf16] = {};
  for (std::int64_t k = 0; k < n_features; ++k) {
    for (int r = 0; r < kRegistersOf16; ++r) {
      const doubles v = load<doubles>(values + k * kPanel + r * kDoubles);
      squares[r] = add_exact_product(squares[r], v, v);
    }
  }
  for (int r = 0; r < kRegistersOf16; ++r) store(norms + r * kDoubles, squares[r]);
  for (std::int64_t i = n; i < kPanel; ++i) norms[i] = __builtin_inf();
}

double sum(const MmdKernel& kernel, const Panel& x, const Panel& y) noexcept {
  double squares[kPanel][kPanel];
  distances(kernel.n_features, x, y, squares);
  double lanes[kPanel];
  for (int r = 0; r < kRegistersOf16; ++r) {
    doubles total = {};
    for (int p = 0; p < x.n; ++p) {
      const doubles d = load<doubles>(&squares[p][r * kDoubles]);
      doubles value = {};
      for (std::int64_t s = 0; s < kernel.n_rates; ++s) {
        value += exponential(d * -kernel.rates[s]);
      }
      total += value;
    }
    store(lanes + r * kDoubles, total);
  }
  return add_16_lanes(lanes);
}

// Up to kDoubles values; all of them is a case of its own, which needs no copies.
template <bool kFull, class T>
inline doubles load_lanes(const T* from, int n_lanes) {
  if constexpr (kFull) return load_doubles(from);
  T end[kDoubles] = {};
  std::memcpy(end, from, static_cast<std::size_t>(n_lanes) * sizeof(T));
  return load_doubles(end);
}
template <bool kFull>
inline void store_lanes(double* to, const doubles& v, int n_lanes) {
  std::memcpy(to, &v, kFull ? sizeof(v) : static_cast<std::size_t>(n_lanes) * sizeof(double));
}

// n_points rows from `row` on, at the features from k on.
template <bool kFull>
inline void pull_lanes(const Panel& x, const Panel& y, const double (*weights)[kPanel],
                       std::int64_t n_features, int row, int n_points, std::int64_t k, int n_lanes,
                       double* out) {
  doubles at[kPoints] = {}, sums[kPoints] = {};
  for (int p = 0; p < n_points; ++p) {
    const std::int64_t from = (row + p) * n_features + k;
    at[p] = load_lanes<kFull>(x.rows + from, n_lanes);
    sums[p] = load_lanes<kFull>(out + from, n_lanes);
  }
  for (int j = 0; j < y.n; ++j) {
    const doubles v = load_lanes<kFull>(y.rows + j * n_features + k, n_lanes);
    for (int p = 0; p < kPoints; ++p) sums[p] += weights[row + p][j] * (at[p] - v);
  }
  for (int p = 0; p < n_points; ++p) {
    store_lanes<kFull>(out + (row + p) * n_features + k, sums[p], n_lanes);
  }
}

void pull(const MmdKernel& kernel, const Panel& x, const Panel& y, double factor,
          double* out) noexcept {
  double weights[kPanel][kPanel];
  distances(kernel.n_features, x, y, weights);
  for (int p = 0; p < x.n; ++p) {
    for (int r = 0; r < kRegistersOf16; ++r) {
      const doubles d = load<doubles>(&weights[p][r * kDoubles]);
      doubles value = {};
      for (std::int64_t s = 0; s < kernel.n_rates; ++s) {
        value += kernel.rates[s] * exponential(d * -kernel.rates[s]);
      }
      store(&weights[p][r * kDoubles], factor * value);
    }
  }
  const std::int64_t n_features = kernel.n_features;
  for (int row = 0; row < x.n; row += kPoints) {
    const int n_points = static_cast<int>(x.n - row < kPoints ? x.n - row : kPoints);
    std::int64_t k = 0;
    for (; k + kDoubles <= n_features; k += kDoubles) {
      pull_lanes<true>(x, y, weights, n_features, row, n_points, k, kDoubles, out);
    }
    if (k < n_features) {
      const int n_lanes = static_cast<int>(n_features - k);
      pull_lanes<false>(x, y, weights, n_features, row, n_points, k, n_lanes, out);
    }
  }
}

}  // namespace
