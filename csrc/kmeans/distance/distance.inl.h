// SPDX-License-Identifier: Apache-2.0
// The body of distance. Internal linkage only.
#pragma once

#include "core/simd/vector.h"
#include "kmeans/distance/distance.h"

namespace {

using namespace ddkern::simd;

// Sixteen lanes of squares: `difference(j)` of kDoubles elements from j, `difference_of_one(j)` of
// one.
template <class Many, class One>
inline double sum_of_squares(std::int64_t n, const Many& difference, const One& difference_of_one) {
  alignas(64) double lanes[16];
  doubles sums[kRegistersOf16] = {};
  std::int64_t j = 0;
  for (; j + 16 <= n; j += 16) {
    for (int v = 0; v < kRegistersOf16; ++v) {
      const doubles r = difference(j + kDoubles * v);
      sums[v] = sums[v] + r * r;
    }
  }
  for (int v = 0; v < kRegistersOf16; ++v) store(lanes + kDoubles * v, sums[v]);
  for (; j < n; ++j) {
    const double r = difference_of_one(j);
    lanes[j % 16] += r * r;
  }
  return add_16_lanes(lanes);
}

template <class T>
double sq_distance(const T* a, const T* b, double scale, std::int64_t n) noexcept {
  return sum_of_squares(
      n, [=](std::int64_t j) { return load_doubles(a + j) * scale - load_doubles(b + j) * scale; },
      [=](std::int64_t j) {
        return static_cast<double>(a[j]) * scale - static_cast<double>(b[j]) * scale;
      });
}

constexpr int kQuickSums = 4;  // registers a row
constexpr int kQuickChains = kQuickSums * kFloats;

inline float sum_of_lanes(const floats* sums) {
  const floats sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)sum);
#else
  float lanes[kFloats];
  store(lanes, sum);
  for (int h = kFloats / 2; h > 0; h /= 2) {
    for (int l = 0; l < h; ++l) lanes[l] += lanes[l + h];
  }
  return lanes[0];
#endif
}

// The last elements, fewer than a register has, and zeros.
inline floats load_rest(const float* from, std::int64_t n) {
  float lanes[kFloats] = {};
  for (std::int64_t l = 0; l < n; ++l) lanes[l] = from[l];
  return load<floats>(lanes);
}

template <int kRows>
inline void quick_distances(const float* a, const float* const* b, std::int64_t n,
                            const float* next, float* out) {
  constexpr int kStep = kQuickSums * kFloats;
  // Unrolled, so that the sums are registers from the start: zeroed in memory, they cost a tenth.
  floats sums[kRows][kQuickSums];
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kQuickSums; ++v) sums[r][v] = floats{};
  }
  const auto add = [&](int r, int v, const floats& x, const floats& y) {
    const floats d = x - y;
    sums[r][v] += d * d;
  };
  std::int64_t j = 0;
  for (; j + kStep <= n; j += kStep) {
#pragma GCC unroll 4
    for (int v = 0; v < kQuickSums; ++v) {
      const std::int64_t at = j + kFloats * v;
      if (v * kRegisterBytes % 64 == 0) __builtin_prefetch(next + at);
      const floats x = load<floats>(a + at);
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) add(r, v, x, load<floats>(b[r] + at));
    }
  }
  for (; j + kFloats <= n; j += kFloats) {
    const floats x = load<floats>(a + j);
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) add(r, 0, x, load<floats>(b[r] + j));
  }
  if (j < n) {
    const floats x = load_rest(a + j, n - j);
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) add(r, 1, x, load_rest(b[r] + j, n - j));
  }
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) out[r] = sum_of_lanes(sums[r]);
}

void quick(const float* a, const float* const* b, int n_b, std::int64_t n, const float* next,
           float* out) noexcept {
  int r = 0;
  for (; r + 2 <= n_b; r += 2) quick_distances<2>(a, b + r, n, next, out + r);
  if (r < n_b) quick_distances<1>(a, b + r, n, next, out + r);
}

template <class T>
double centred_sq_norm(const T* a, const T* centre, double scale, std::int64_t n) noexcept {
  return sum_of_squares(
      n, [=](std::int64_t j) { return load_doubles(a + j) * scale - load_doubles(centre + j); },
      [=](std::int64_t j) {
        return static_cast<double>(a[j]) * scale - static_cast<double>(centre[j]);
      });
}

double sq_norm(const double* v, std::int64_t n) noexcept {
  return sum_of_squares(
      n, [=](std::int64_t j) { return load_doubles(v + j); }, [=](std::int64_t j) { return v[j]; });
}

}  // namespace
