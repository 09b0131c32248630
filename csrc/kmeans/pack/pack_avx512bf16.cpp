// SPDX-License-Identifier: Apache-2.0
#include "kmeans/pack/pack.inl.h"
#include "kmeans/pack/pack_bytes_avx512vnni.h"
#include "kmeans/pack/transpose_avx512.h"

namespace {

inline __m512 from_bf16(__m256i halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

struct Avx512Bf16 {
  static constexpr bool kHasBf16 = true;
  static constexpr int kTile = 16;
  static void transpose(const std::uint32_t* from, int from_stride, std::uint32_t* to,
                        int to_stride) {
    transpose_16x16(from, from_stride, to, to_stride);
  }
  // 2 * n_words floats to bfloat16 words; their squares, and the squares of what was lost, are
  // added to norm_lanes and residual_lanes [16].
  static void round_bf16(const float* y, int n_words, std::uint32_t* words, float* norm_lanes,
                         float* residual_lanes) {
    __m512 norm = _mm512_loadu_ps(norm_lanes), residual = _mm512_loadu_ps(residual_lanes);
    for (int w = 0; w < n_words; w += 16) {
      const int n_left = 2 * (n_words - w);
      const __mmask16 first = n_left >= 16 ? 0xffff : static_cast<__mmask16>((1u << n_left) - 1);
      const __mmask16 second =
          n_left >= 32 ? 0xffff
                       : (n_left > 16 ? static_cast<__mmask16>((1u << (n_left - 16)) - 1) : 0);
      const __m512 a = _mm512_maskz_loadu_ps(first, y + 2 * w);
      const __m512 b = _mm512_maskz_loadu_ps(second, y + 2 * w + 16);
      const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(b, a);
      const __m512 lost_a = _mm512_sub_ps(a, from_bf16(_mm512_castsi512_si256(rounded)));
      const __m512 lost_b = _mm512_sub_ps(b, from_bf16(_mm512_extracti64x4_epi64(rounded, 1)));
      norm = _mm512_fmadd_ps(a, a, norm);
      norm = _mm512_fmadd_ps(b, b, norm);
      residual = _mm512_fmadd_ps(lost_a, lost_a, residual);
      residual = _mm512_fmadd_ps(lost_b, lost_b, residual);
      _mm512_storeu_si512(words + w, rounded);
    }
    _mm512_storeu_ps(norm_lanes, norm);
    _mm512_storeu_ps(residual_lanes, residual);
  }
};

}  // namespace

namespace ddkern::kmeans {
extern const PackTable pack_avx512bf16 = {
    {survey<float>, small_integers<float>, pack_block<Avx512Bf16, float>, pack_column<float>,
     pack_bytes<float>, pack_column_bytes<float>, chain_rows<float>},
    {survey<double>, small_integers<double>, pack_block<Avx512Bf16, double>, pack_column<double>,
     pack_bytes<double>, pack_column_bytes<double>, chain_rows<double>}};
}
