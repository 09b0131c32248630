// SPDX-License-Identifier: Apache-2.0
// float32 in AVX-512 registers: 2 x 12 accumulators. For the AVX-512 files of dots.
#pragma once

#include <immintrin.h>

namespace {

struct Avx512 {
  using Scalar = float;
  using Vector = __m512;
  using Accumulator = __m512;
  static constexpr int kLanes = 16, kVectors = 2, kMaxWidth = 12;
  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static Vector broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static Vector load_sum(const float* p) { return load(p); }
  static void store(float* p, Accumulator v) { _mm512_storeu_ps(p, v); }
  static Accumulator accumulate(Accumulator sum, Vector point, Vector column) {
    return _mm512_fmadd_ps(point, column, sum);
  }
};

}  // namespace
