// SPDX-License-Identifier: Apache-2.0
// Vectors of one register in the compiler's own extension. Bodies count in lanes, so that one body
// serves every level with the same order of operations, and so with the same bits. Wider vectors
// would do that too, but GCC 12 takes their comparisons and conversions apart into scalars.
// Everything here has internal linkage: an inline function shared between files with different ISA
// flags could be merged into the wrong one.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace ddkern::simd {

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif
constexpr int kFloats = kRegisterBytes / 4;
constexpr int kDoubles = kRegisterBytes / 8;

typedef float floats __attribute__((vector_size(kRegisterBytes)));           // [kFloats]
typedef float half_floats __attribute__((vector_size(kRegisterBytes / 2)));  // [kDoubles]
typedef double doubles __attribute__((vector_size(kRegisterBytes)));
typedef std::int32_t int32s __attribute__((vector_size(kRegisterBytes)));
typedef std::int64_t int64s __attribute__((vector_size(kRegisterBytes)));

#define DDKERN_SIMD_INLINE [[maybe_unused]] static inline __attribute__((always_inline))

template <class V>
DDKERN_SIMD_INLINE V load(const void* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}
template <class V>
DDKERN_SIMD_INLINE void store(void* to, const V& value) {
  std::memcpy(to, &value, sizeof(V));
}

template <class V>
DDKERN_SIMD_INLINE V lesser(const V& a, const V& b) {
  return a < b ? a : b;
}
#if defined(__AVX512F__)
// GCC 12 makes a comparison and a blend of it, which take twice as long.
DDKERN_SIMD_INLINE floats lesser(const floats& a, const floats& b) {
  return (floats)_mm512_min_ps((__m512)a, (__m512)b);
}
#endif
template <class V>
DDKERN_SIMD_INLINE V greater(const V& a, const V& b) {
  return a > b ? a : b;
}

// Whether a <= b in any lane.
DDKERN_SIMD_INLINE bool any_up_to(const floats& a, const floats& b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LE_OQ)) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_ps(_mm_cmple_ps((__m128)a, (__m128)b)) != 0;
#else
  bool any = false;
  for (int l = 0; l < kFloats; ++l) any = any || a[l] <= b[l];
  return any;
#endif
}

// Bit l: whether a > b in lane l.
DDKERN_SIMD_INLINE std::uint32_t lanes_above(const floats& a, const floats& b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
#elif defined(__AVX2__)
  return static_cast<std::uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ)));
#elif defined(__SSE2__)
  return static_cast<std::uint32_t>(_mm_movemask_ps(_mm_cmpgt_ps((__m128)a, (__m128)b)));
#else
  std::uint32_t bits = 0;
  for (int l = 0; l < kFloats; ++l) bits |= static_cast<std::uint32_t>(a[l] > b[l]) << l;
  return bits;
#endif
}

// a - b * c, rounded once or twice: for bounds.
DDKERN_SIMD_INLINE floats less_product(const floats& a, const floats& b, float c) {
#if defined(__AVX512F__)
  return (floats)_mm512_fnmadd_ps((__m512)b, _mm512_set1_ps(c), (__m512)a);
#elif defined(__FMA__)
  return (floats)_mm256_fnmadd_ps((__m256)b, _mm256_set1_ps(c), (__m256)a);
#else
  return a - b * c;
#endif
}

DDKERN_SIMD_INLINE float least_lane(const floats& v) {
#if defined(__AVX512F__)
  return _mm512_reduce_min_ps((__m512)v);
#else
  float least = v[0];
  for (int l = 1; l < kFloats; ++l) least = v[l] < least ? v[l] : least;
  return least;
#endif
}

DDKERN_SIMD_INLINE floats square_root(const floats& v) {
#if defined(__AVX512F__)
  return (floats)_mm512_sqrt_ps((__m512)v);
#elif defined(__AVX2__)
  return (floats)_mm256_sqrt_ps((__m256)v);
#elif defined(__SSE2__)
  return (floats)_mm_sqrt_ps((__m128)v);
#else
  floats root = v;
  for (int l = 0; l < kFloats; ++l) root[l] = __builtin_sqrtf(v[l]);
  return root;
#endif
}

// GCC 12 cuts a generic conversion into halves, so AVX-512 is told.
DDKERN_SIMD_INLINE doubles widen(const half_floats& v) {
#if defined(__AVX512F__)
  return (doubles)_mm512_cvtps_pd((__m256)v);
#else
  return __builtin_convertvector(v, doubles);
#endif
}
DDKERN_SIMD_INLINE half_floats narrow(const doubles& v) {
#if defined(__AVX512F__)
  return (half_floats)_mm512_cvtpd_ps((__m512d)v);
#else
  return __builtin_convertvector(v, half_floats);
#endif
}

// Rounded once. Without the conversion of AVX-512: both halves as the low bits of doubles 2^84 and
// 2^52, whose constants go away without rounding before the halves meet.
DDKERN_SIMD_INLINE doubles to_doubles(const int64s& v) {
#if defined(__AVX512DQ__)
  return (doubles)_mm512_cvtepi64_pd((__m512i)v);
#else
  typedef std::uint64_t words __attribute__((vector_size(kRegisterBytes)));
  const words bits = (words)v;
  const words high = (bits >> 32) ^ 0x4530000080000000u;
  const words low = (bits & 0xffffffffu) | 0x4330000000000000u;
  return ((doubles)high - 0x1.00000801p84) + (doubles)low;
#endif
}

// kDoubles stored values as doubles.
DDKERN_SIMD_INLINE doubles load_doubles(const float* from) {
  return widen(load<half_floats>(from));
}
DDKERN_SIMD_INLINE doubles load_doubles(const double* from) { return load<doubles>(from); }

// Sixteen doubles side by side, whatever the level: lane l sums what has index l mod 16.
constexpr int kRegistersOf16 = 16 / kDoubles;  // registers

// The tree of docs/numerics.md section 6: lanes h apart, h = 8, 4, 2, 1. Destroys `lanes` [16].
DDKERN_SIMD_INLINE double add_16_lanes(double* lanes) {
  for (int h = 8; h > 0; h /= 2) {
    for (int l = 0; l < h; ++l) lanes[l] += lanes[l + h];
  }
  return lanes[0];
}

}  // namespace ddkern::simd
