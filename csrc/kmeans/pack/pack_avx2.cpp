// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "kmeans/pack/pack.inl.h"

namespace {

struct Avx2 {
  static constexpr bool kHasBf16 = false;
  static constexpr int kTile = 8;
  static void transpose(const std::uint32_t* from, int from_stride, std::uint32_t* to,
                        int to_stride) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; ++i) {
      r[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(from + i * from_stride));
    }
    for (int i = 0; i < 4; ++i) {
      t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
      r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
      r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
      r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
      r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
      float* low = reinterpret_cast<float*>(to + i * to_stride);
      float* high = reinterpret_cast<float*>(to + (i + 4) * to_stride);
      _mm256_storeu_ps(low, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
      _mm256_storeu_ps(high, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
  }
};

}  // namespace

namespace ddkern::kmeans {
extern const PackTable pack_avx2 = {
    {survey<float>, small_integers<float>, pack_block<Avx2, float>, pack_column<float>, nullptr,
     nullptr, nullptr},
    {survey<double>, small_integers<double>, pack_block<Avx2, double>, pack_column<double>, nullptr,
     nullptr, nullptr}};
}
