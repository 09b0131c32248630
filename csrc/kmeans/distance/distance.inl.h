// SPDX-License-Identifier: Apache-2.0
// The body of distance. Internal linkage only.
#pragma once

#include "core/simd/vector.h"
#include "kmeans/distance/distance.h"

namespace {

using namespace ddkern::simd;

// kCentred: b is scaled already.
template <bool kCentred, class T>
double sum_of_squares(const T* a, const T* b, double scale, std::int64_t n) noexcept {
  const double b_scale = kCentred ? 1.0 : scale;
  alignas(64) double lanes[16];
  f64x8 low{}, high{};
  std::int64_t j = 0;
  for (; j + 16 <= n; j += 16) {
    const f64x8 r0 = load_f64x8(a + j) * scale - load_f64x8(b + j) * b_scale;
    const f64x8 r1 = load_f64x8(a + j + 8) * scale - load_f64x8(b + j + 8) * b_scale;
    low = low + r0 * r0;
    high = high + r1 * r1;
  }
  store(lanes, low);
  store(lanes + 8, high);
  for (; j < n; ++j) {
    const double r = static_cast<double>(a[j]) * scale - static_cast<double>(b[j]) * b_scale;
    lanes[j % 16] += r * r;
  }
  return add_16_lanes(lanes);
}

template <class T>
double sq_distance(const T* a, const T* b, double scale, std::int64_t n) noexcept {
  return sum_of_squares<false>(a, b, scale, n);
}

inline float sum_of_lanes(const f32x16* sums) {
  const f32x16 sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  float lanes[16];
  store(lanes, sum);
  for (int h = 8; h > 0; h /= 2) {
    for (int l = 0; l < h; ++l) lanes[l] += lanes[l + h];
  }
  return lanes[0];
}

template <int kRows>
inline void quick_distances(const float* a, const float* const* b, std::int64_t n,
                            const float* next, float* out) {
  f32x16 sums[kRows][4] = {};
  std::int64_t j = 0;
  for (; j + 64 <= n; j += 64) {
    for (int v = 0; v < 4; ++v) {
      __builtin_prefetch(next + j + 16 * v);
      const f32x16 x = load<f32x16>(a + j + 16 * v);
      for (int r = 0; r < kRows; ++r) {
        const f32x16 d = x - load<f32x16>(b[r] + j + 16 * v);
        sums[r][v] += d * d;
      }
    }
  }
  float rest[kRows] = {};
  for (; j < n; ++j) {
    for (int r = 0; r < kRows; ++r) {
      const float d = a[j] - b[r][j];
      rest[r] += d * d;
    }
  }
  for (int r = 0; r < kRows; ++r) out[r] = sum_of_lanes(sums[r]) + rest[r];
}

void quick(const float* a, const float* const* b, int n_b, std::int64_t n, const float* next,
           float* out) noexcept {
  int r = 0;
  for (; r + 2 <= n_b; r += 2) quick_distances<2>(a, b + r, n, next, out + r);
  if (r < n_b) quick_distances<1>(a, b + r, n, next, out + r);
}

template <class T>
double centred_sq_norm(const T* a, const T* centre, double scale, std::int64_t n) noexcept {
  return sum_of_squares<true>(a, centre, scale, n);
}

template <class T>
double sq_off(const T* a, const T* centre, double scale, const double* mean,
              std::int64_t n) noexcept {
  alignas(64) double lanes[16];
  f64x8 low{}, high{};
  std::int64_t j = 0;
  for (; j + 16 <= n; j += 16) {
    const f64x8 c0 = load_f64x8(a + j) * scale - load_f64x8(centre + j);
    const f64x8 c1 = load_f64x8(a + j + 8) * scale - load_f64x8(centre + j + 8);
    const f64x8 r0 = c0 - load_f64x8(mean + j), r1 = c1 - load_f64x8(mean + j + 8);
    low = low + r0 * r0;
    high = high + r1 * r1;
  }
  store(lanes, low);
  store(lanes + 8, high);
  for (; j < n; ++j) {
    const double c = static_cast<double>(a[j]) * scale - static_cast<double>(centre[j]);
    lanes[j % 16] += (c - mean[j]) * (c - mean[j]);
  }
  return add_16_lanes(lanes);
}

double sq_norm(const double* v, std::int64_t n) noexcept {
  alignas(64) double lanes[16];
  f64x8 low{}, high{};
  std::int64_t j = 0;
  for (; j + 16 <= n; j += 16) {
    const f64x8 r0 = load_f64x8(v + j), r1 = load_f64x8(v + j + 8);
    low = low + r0 * r0;
    high = high + r1 * r1;
  }
  store(lanes, low);
  store(lanes + 8, high);
  for (; j < n; ++j) lanes[j % 16] += v[j] * v[j];
  return add_16_lanes(lanes);
}

}  // namespace
