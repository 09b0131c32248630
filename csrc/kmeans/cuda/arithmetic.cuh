// SPDX-License-Identifier: Apache-2.0
// The canonical arithmetic (docs/numerics.md) in device functions. Compiled without contraction:
// every operation below rounds once.
#pragma once

#include <cstdint>

#include "core/cuda/reduce.cuh"
#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

using ddkern::cuda::kAllLanes;
using ddkern::cuda::kWarp;

constexpr int kLanes = 16;  // of the sums of squares, section 6
// What a float32 square may take from the root of a sum, for every feature: squares of less than
// 2^-126 are denormal, off by up to 2^-150, or 0.
constexpr float kLostSquares = 0x1p-74f;

// The e of v = f * 2^e with 0.5 <= f < 1, and 0 for 0.
inline __device__ int exponent_of(double v) {
  if (v == 0) return 0;
  int lift = 0;
  if (fabs(v) < 0x1p-1000) {
    v *= 0x1p100;
    lift = 100;
  }
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(v));
  return static_cast<int>((bits >> 52) & 0x7ff) - 1022 - lift;
}

// 2^e for |e| <= 1022.
inline __device__ double power_of_two(int e) {
  return __longlong_as_double(static_cast<long long>(e + 1023) << 52);
}

inline __device__ int grid_exponent(double largest) {
  const int e = exponent_of(largest);
  return e < -900 ? -900 : e;
}

inline __device__ std::int64_t round_to_integer(double v) { return __double2ll_rn(v); }

// The same for |v| < 2^51, with an addition in place of a conversion, of which a multiprocessor
// does far fewer: 1.5 * 2^52 leaves the integer in the low bits.
inline __device__ std::int64_t round_narrow(double v) {
  return __double_as_longlong(v + 0x1.8p52) - __double_as_longlong(0x1.8p52);
}

// A_i(q) of section 4, q the rounded value of v.
inline __device__ std::int64_t weighted_integer(double v, const double* weights,
                                                std::int64_t position) {
  if (weights == nullptr) return round_narrow(v);
  return round_to_integer(rint(v) * weights[position]);
}

// y64: section 3.
template <class T>
__device__ double centred(T x, T centre, double scale) {
  return static_cast<double>(x) * scale - static_cast<double>(centre);
}

// y32. A power of two that float32 cannot hold comes in two factors.
struct Factors {
  float first, rest;
};
inline __device__ Factors factors_of(int exponent) {
  const int first = exponent < 127 ? exponent : 127;
  // ldexpf keeps denormal powers of two.
  return {ldexpf(1.0f, first), ldexpf(1.0f, exponent - first)};
}
inline __device__ float centred_f32(float x, float centre, const Factors& factors, double) {
  return x * factors.first * factors.rest - centre;
}
inline __device__ float centred_f32(double x, double centre, const Factors&, double scale) {
  return static_cast<float>(x * scale - centre);
}

// The 16 lanes of a sum of squares, held by 16 neighbouring threads of a warp, added as a tree;
// the first of them has the sum, and so have all.
inline __device__ double add_lanes(double lane) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    lane += __shfl_xor_sync(kAllLanes, lane, half);
  }
  return lane;
}

// The same lanes held kWidth to a thread, by 16 / kWidth neighbouring threads: those of features
// kWidth * part and following of every sixteen.
template <int kWidth>
struct Lanes {
  static constexpr int kParts = kLanes / kWidth;
  double values[kWidth] = {};

  // All threads of the warp; all of a vector have the sum.
  __device__ double total() const {
    double sums[kWidth];
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      sums[v] = values[v];
      for (int half = kParts / 2; half > 0; half /= 2) {
        sums[v] += __shfl_xor_sync(kAllLanes, sums[v], half);
      }
    }
#pragma unroll
    for (int half = kWidth / 2; half > 0; half /= 2) {
#pragma unroll
      for (int v = 0; v < half; ++v) sums[v] += sums[v + half];
    }
    return sums[0];
  }
};

// Over the threads of a vector; order and rounding do not matter.
template <int kParts, class V, class Join>
__device__ V join_parts(V value, Join join) {
  for (int half = kParts / 2; half > 0; half /= 2) {
    value = join(value, __shfl_xor_sync(kAllLanes, value, half));
  }
  return value;
}

// d64 by 16 threads, `lane` 0 to 15; all threads of the warp call it together.
template <class T>
__device__ double sq_distance(const T* a, const T* b, double scale, int n, int lane) {
  double sum = 0;
  for (int j = lane; j < n; j += kLanes) {
    const double r = static_cast<double>(a[j]) * scale - static_cast<double>(b[j]) * scale;
    sum += r * r;
  }
  return add_lanes(sum);
}

// Section 7.
inline __device__ double uniform(std::uint64_t seed, std::int64_t group_id, unsigned step,
                                 unsigned restart, unsigned trial) {
  const auto id = static_cast<std::uint64_t>(group_id);
  unsigned c0 = step, c1 = restart * 65536u + trial;
  unsigned c2 = static_cast<unsigned>(id), c3 = static_cast<unsigned>(id >> 32);
  unsigned k0 = static_cast<unsigned>(seed), k1 = static_cast<unsigned>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c0, p1 = std::uint64_t{0xCD9E8D57} * c2;
    const unsigned n0 = static_cast<unsigned>(p1 >> 32) ^ c1 ^ k0;
    const unsigned n2 = static_cast<unsigned>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<unsigned>(p1);
    c3 = static_cast<unsigned>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const std::uint64_t bits = (std::uint64_t{c0} << 32) | c1;
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// tau of a draw from masses of total `total`.
inline __device__ std::int64_t draw_target(double u, std::int64_t total) {
  const auto target = static_cast<std::int64_t>(u * static_cast<double>(total));
  return target < total - 1 ? target : total - 1;
}

// Neighbouring values at a multiple of 16 bytes.
template <class T, int kValues>
__device__ __forceinline__ void load_aligned(const T* from, T (&values)[kValues]) {
  constexpr int kVectors = kValues * static_cast<int>(sizeof(T)) / 16;
  static_assert(kVectors * 16 == kValues * static_cast<int>(sizeof(T)));
  float4 parts[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) parts[v] = reinterpret_cast<const float4*>(from)[v];
  memcpy(values, parts, sizeof(parts));
}

template <class T, int kValues>
__device__ __forceinline__ void store_aligned(T* to, const T (&values)[kValues]) {
  constexpr int kVectors = kValues * static_cast<int>(sizeof(T)) / 16;
  static_assert(kVectors * 16 == kValues * static_cast<int>(sizeof(T)));
  float4 parts[kVectors];
  memcpy(parts, values, sizeof(parts));
#pragma unroll
  for (int v = 0; v < kVectors; ++v) reinterpret_cast<float4*>(to)[v] = parts[v];
}

// kWidth neighbouring values; more than one at a multiple of their size.
template <int kWidth, class V>
__device__ __forceinline__ void load_values(const V* from, V (&values)[kWidth]) {
  if constexpr (kWidth == 1) {
    values[0] = *from;
  } else {
    load_aligned(from, values);
  }
}

template <int kWidth>
__device__ __forceinline__ void store_halves(__half* to, const __half (&values)[kWidth]) {
  if constexpr (kWidth == 1) {
    *to = values[0];
  } else {
    static_assert(kWidth == 4);
    uint2 bits;
    memcpy(&bits, values, sizeof(bits));
    *reinterpret_cast<uint2*>(to) = bits;
  }
}

// Rows as numbers: -0 equals 0. By one thread; rows that differ mostly do so at once.
template <class T>
__device__ bool rows_equal(const T* a, const T* b, int n) {
  for (int j = 0; j < n; ++j) {
    if (a[j] != b[j]) return false;
  }
  return true;
}

}  // namespace ddkern::kmeans::cuda
