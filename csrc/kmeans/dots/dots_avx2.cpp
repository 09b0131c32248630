// SPDX-License-Identifier: Apache-2.0
// AVX2 and FMA: 2 x 6 accumulators, the widest tile that leaves registers for its operands.
#include <immintrin.h>

#include "kmeans/dots/dots.inl.h"

namespace {

struct Avx2 {
  using Scalar = float;
  using Vector = __m256;
  using Accumulator = __m256;
  static constexpr int kLanes = 8, kVectors = 2, kMaxWidth = 6;
  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static Vector broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static Vector load_sum(const float* p) { return load(p); }
  static void store(float* p, Accumulator v) { _mm256_storeu_ps(p, v); }
  static Accumulator accumulate(Accumulator sum, Vector point, Vector column) {
    return _mm256_fmadd_ps(point, column, sum);
  }
};

void chain_f32(const DotsArgs& args) noexcept { dot_tile<Avx2>(args); }
void chain_norms(const float* points, std::int64_t n_features, float* out) noexcept {
  norms_of_block<Avx2>(points, n_features, out);
}

}  // namespace

namespace ddkern::kmeans {
extern const DotsOps dots_avx2 = {chain_f32, chain_norms, chain_f32, nullptr, 1.0, nullptr};
}
