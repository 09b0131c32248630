// SPDX-License-Identifier: Apache-2.0
// AVX512-BF16: two products a lane and instruction, twice the rate of float32 FMA.
#include <cstdint>

#include "kmeans/dots/dots.inl.h"
#include "kmeans/dots/dots_bytes_avx512vnni.h"
#include "kmeans/dots/lanes_avx512.h"

namespace {

struct Bf16 {
  using Scalar = std::uint32_t;
  using Vector = __m512i;
  using Accumulator = __m512;
  static constexpr int kLanes = 16, kVectors = 2, kMaxWidth = 12;
  static Accumulator zero() { return _mm512_setzero_ps(); }
  static Vector load(const std::uint32_t* p) { return _mm512_loadu_si512(p); }
  static Vector broadcast(const std::uint32_t* p) {
    return _mm512_set1_epi32(static_cast<int>(*p));
  }
  static Accumulator load_sum(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Accumulator v) { _mm512_storeu_ps(p, v); }
  static Accumulator accumulate(Accumulator sum, Vector point, Vector column) {
    return _mm512_dpbf16_ps(sum, (__m512bh)point, (__m512bh)column);
  }
};

void chain_f32(const DotsArgs& args) noexcept { dot_tile<Avx512>(args); }
void chain_norms(const float* points, std::int64_t n_features, float* out) noexcept {
  norms_of_block<Avx512>(points, n_features, out);
}
void fast_bf16(const DotsArgs& args) noexcept { dot_tile<Bf16>(args); }

}  // namespace

namespace ddkern::kmeans {
extern const DotsOps dots_avx512bf16 = {chain_f32, chain_norms, chain_f32,
                                        fast_bf16, 1.0,         fast_bytes};
}
