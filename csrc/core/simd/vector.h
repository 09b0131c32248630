// SPDX-License-Identifier: Apache-2.0
// Fixed-width vectors in the compiler's own extension. The compiler cuts them into whatever
// registers the file's ISA flags allow, so one body serves every level with the same order of
// operations, and so with the same bits. Everything here has internal linkage: an inline function
// shared between files with different ISA flags could be merged into the wrong one.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace ddkern::simd {

typedef float f32x8 __attribute__((vector_size(32)));
typedef float f32x16 __attribute__((vector_size(64)));
typedef double f64x8 __attribute__((vector_size(64)));
typedef std::int32_t i32x8 __attribute__((vector_size(32)));
typedef std::int32_t i32x16 __attribute__((vector_size(64)));
typedef std::uint32_t u32x16 __attribute__((vector_size(64)));
typedef std::int64_t i64x8 __attribute__((vector_size(64)));
typedef std::uint64_t u64x8 __attribute__((vector_size(64)));

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

// Conversions of eight values. GCC 12 cuts a generic one into halves, so AVX-512 is told.
DDKERN_SIMD_INLINE f64x8 widen(const f32x8& v) {
#if defined(__AVX512F__)
  return (f64x8)_mm512_cvtps_pd((__m256)v);
#else
  return __builtin_convertvector(v, f64x8);
#endif
}
DDKERN_SIMD_INLINE f32x8 narrow(const f64x8& v) {
#if defined(__AVX512F__)
  return (f32x8)_mm512_cvtpd_ps((__m512d)v);
#else
  return __builtin_convertvector(v, f32x8);
#endif
}

// Eight stored values as doubles.
DDKERN_SIMD_INLINE f64x8 load_f64x8(const float* from) { return widen(load<f32x8>(from)); }
DDKERN_SIMD_INLINE f64x8 load_f64x8(const double* from) { return load<f64x8>(from); }

// The tree of docs/numerics.md section 6: lanes h apart, h = 8, 4, 2, 1. Destroys `lanes` [16].
DDKERN_SIMD_INLINE double add_16_lanes(double* lanes) {
  for (int h = 8; h > 0; h /= 2) {
    for (int l = 0; l < h; ++l) lanes[l] += lanes[l + h];
  }
  return lanes[0];
}

}  // namespace ddkern::simd
