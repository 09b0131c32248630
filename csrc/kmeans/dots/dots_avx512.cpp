// SPDX-License-Identifier: Apache-2.0
// AVX-512: 2 x 12 accumulators.
#include <immintrin.h>

#include "kmeans/dots/dots.inl.h"

namespace {

struct Avx512 {
  using Scalar = float;
  using Vector = __m512;
  using Accumulator = __m512;
  static constexpr int kLanes = 16, kVectors = 2, kMaxWidth = 12;
  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static Vector broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static void store(float* p, Accumulator v) { _mm512_storeu_ps(p, v); }
  static Accumulator accumulate(Accumulator sum, Vector point, Vector column) {
    return _mm512_fmadd_ps(point, column, sum);
  }
};

void chain_f32(const DotsArgs& args) noexcept { dot_tile<Avx512>(args); }
void chain_norms(const float* points, std::int64_t n_features, float* out) noexcept {
  norms_of_block<Avx512>(points, n_features, out);
}

}  // namespace

namespace ddkern::kmeans {
extern const DotsOps dots_avx512 = {chain_f32, chain_norms, chain_f32, nullptr, 1.0};
}
