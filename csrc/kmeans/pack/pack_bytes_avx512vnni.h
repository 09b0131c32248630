// SPDX-License-Identifier: Apache-2.0
// Rows and columns as bytes (kmeans/byte_layout.h), for the files of pack whose level multiplies
// bytes.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kmeans/pack/pack.inl.h"
#include "kmeans/pack/transpose_avx512.h"

namespace {

using ddkern::kmeans::ByteColumnArgs;
using ddkern::kmeans::ByteRowsArgs;
using ddkern::kmeans::ByteSegment;
using ddkern::kmeans::ChainRowsArgs;
using ddkern::kmeans::kByteLevels;
using ddkern::kmeans::kLowByte;

constexpr int kTileWords = kTileFeatures / 4;

// std::min would be an inline function of this level that the linker may share.
inline int at_most(int most, std::int64_t n) { return n < most ? static_cast<int>(n) : most; }
inline std::int64_t words_of(const ByteSegment& segment) {
  return (segment.end - segment.begin + 3) / 4;
}

inline __m512i to_bytes_range(__m512 v) {
  const __m512i most = _mm512_set1_epi32(kByteLevels);
  const __m512i least = _mm512_set1_epi32(-kByteLevels - 1);
  return _mm512_max_epi32(_mm512_min_epi32(_mm512_cvtps_epi32(v), most), least);
}
// Points are unsigned in the products: biased by 128.
inline void store_biased(void* to, __m512i v) {
  const __m128i bytes = _mm_xor_si128(_mm512_cvtepi32_epi8(v), _mm_set1_epi8(-128));
  _mm_storeu_si128(static_cast<__m128i*>(to), bytes);
}

// n features (padded to 16 with zeros) of one row to bytes; the squares of what they were and of
// what was lost are added to the lanes.
inline void round_to_bytes(const float* y, int n, const ByteSegment& segment, std::uint32_t* high,
                           std::uint32_t* low, float* norm_lanes, float* lost_lanes) {
  const __m512 step = _mm512_set1_ps(segment.step), inverse = _mm512_set1_ps(1 / segment.step);
  const __m512 low_step = _mm512_set1_ps(segment.step / kLowByte);
  const __m512 low_inverse = _mm512_set1_ps(kLowByte / segment.step);
  __m512 norm = _mm512_loadu_ps(norm_lanes), lost = _mm512_loadu_ps(lost_lanes);
  for (int j = 0; j < n; j += 16) {
    const __m512 v = _mm512_loadu_ps(y + j);
    norm = _mm512_fmadd_ps(v, v, norm);
    const __m512i rounded = to_bytes_range(_mm512_mul_ps(v, inverse));
    store_biased(high + j / 4, rounded);
    __m512 rest = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(rounded), step, v);
    if (segment.doubled) {
      const __m512i finer = to_bytes_range(_mm512_mul_ps(rest, low_inverse));
      store_biased(low + j / 4, finer);
      rest = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(finer), low_step, rest);
    }
    lost = _mm512_fmadd_ps(rest, rest, lost);
  }
  _mm512_storeu_ps(norm_lanes, norm);
  _mm512_storeu_ps(lost_lanes, lost);
}

inline void transpose_words(const std::uint32_t* tile, int n_words, std::uint32_t* out) {
  int w = 0;
  for (; w + 16 <= n_words; w += 16) {
    for (int p = 0; p < kBlockPoints; p += 16) {
      transpose_16x16(tile + p * kTileWords + w, kTileWords, out + w * kBlockPoints + p,
                      kBlockPoints);
    }
  }
  for (; w < n_words; ++w) {
    for (int p = 0; p < kBlockPoints; ++p) out[w * kBlockPoints + p] = tile[p * kTileWords + w];
  }
}

template <class T>
void pack_bytes(const ByteRowsArgs<T>& args) noexcept {
  alignas(64) float y[kTileFeatures];
  alignas(64) std::uint32_t high[kBlockPoints * kTileWords], low[kBlockPoints * kTileWords];
  alignas(64) float norm_lanes[kBlockPoints][16], lost_lanes[kBlockPoints][16];
  RowLanes unused;
  Prefetcher ahead(args.ahead);
  std::uint32_t* out = args.packed;
  for (std::int64_t s = 0; s < args.n_segments; ++s) {
    const ByteSegment& segment = args.segments[s];
    std::memset(norm_lanes, 0, sizeof(norm_lanes));
    std::memset(lost_lanes, 0, sizeof(lost_lanes));
    std::uint32_t* low_out = out + words_of(segment) * kBlockPoints;
    for (std::int64_t d = segment.begin; d < segment.end; d += kTileFeatures) {
      const int n = at_most(kTileFeatures, segment.end - d);
      const int n_padded = (n + 15) / 16 * 16;
      for (int p = 0; p < kBlockPoints; ++p) {
        std::uint32_t *high_row = high + p * kTileWords, *low_row = low + p * kTileWords;
        if (p >= args.n_rows) {
          std::memset(high_row, 0x80, static_cast<std::size_t>(n_padded));
          std::memset(low_row, 0x80, static_cast<std::size_t>(n_padded));
          continue;
        }
        ahead.fetch(n * static_cast<int>(sizeof(T)) / 64 + 1);
        centre_piece<false>(args.rows[p] + d, args.scale, args.centre + d, n, y, unused);
        for (int j = n; j < n_padded; ++j) y[j] = 0;
        round_to_bytes(y, n_padded, segment, high_row, low_row, norm_lanes[p], lost_lanes[p]);
      }
      const int n_words = (n + 3) / 4;
      transpose_words(high, n_words, out + (d - segment.begin) / 4 * kBlockPoints);
      if (segment.doubled) {
        transpose_words(low, n_words, low_out + (d - segment.begin) / 4 * kBlockPoints);
      }
    }
    for (int p = 0; p < kBlockPoints; ++p) {
      args.sq_norms[s * kBlockPoints + p] = _mm512_reduce_add_ps(_mm512_load_ps(norm_lanes[p]));
      args.sq_lost[s * kBlockPoints + p] = _mm512_reduce_add_ps(_mm512_load_ps(lost_lanes[p]));
    }
    out += words_of(segment) * (segment.doubled ? 2 : 1) * kBlockPoints;
  }
}

// Eight centred features of a column in float64, zeros beyond the end of the segment.
struct ColumnPiece {
  __m512d stored, centred;
};
template <class T>
inline ColumnPiece column_piece(const ByteColumnArgs<T>& args, std::int64_t j, std::int64_t end) {
  T c[8] = {}, m[8] = {};
  const T *from = args.centroid + j, *centre = args.centre + j;
  if (end - j < 8) {
    for (int l = 0; l < end - j; ++l) c[l] = from[l], m[l] = centre[l];
    from = c;
    centre = m;
  }
  const doubles stored = load_doubles(from) * args.scale;
  return {(__m512d)stored, (__m512d)(stored - load_doubles(centre))};
}

inline std::int64_t sum_of(__m256i v) { return _mm512_reduce_add_epi64(_mm512_cvtepi32_epi64(v)); }

template <class T>
void pack_column_bytes(const ByteColumnArgs<T>& args) noexcept {
  std::uint32_t* const header = args.column;
  std::int64_t run = 0;
  const auto describe_run = [&](double scale, std::int64_t sum) {
    const auto rounded = static_cast<float>(scale);
    std::memcpy(header + run, &rounded, sizeof(rounded));
    // Takes the bias of the points away again.
    header[args.n_runs + run] = static_cast<std::uint32_t>(static_cast<std::int32_t>(-128 * sum));
    ++run;
  };
  for (std::int64_t s = 0; s < args.n_segments; ++s) {
    const ByteSegment& segment = args.segments[s];
    __m512d norm = _mm512_setzero_pd(), uncentred = norm, largest = norm;
    for (std::int64_t j = segment.begin; j < segment.end; j += 8) {
      const ColumnPiece z = column_piece(args, j, segment.end);
      norm = _mm512_fmadd_pd(z.centred, z.centred, norm);
      uncentred = _mm512_fmadd_pd(z.stored, z.stored, uncentred);
      largest = _mm512_max_pd(largest, _mm512_abs_pd(z.centred));
    }
    const auto step =
        static_cast<float>(_mm512_reduce_max_pd(largest) / kByteLevels * (1 + 0x1p-20));
    const double inverse = step > 0x1p-120f && step < 0x1p120f ? 1.0 / step : 0.0;
    auto* high = reinterpret_cast<std::int8_t*>(header + args.runs[run].column_word);
    std::int8_t* low = high + 4 * words_of(segment);
    std::int8_t* high_again = low + 4 * words_of(segment);
    const __m512d low_steps = _mm512_set1_pd(kLowByte);
    __m512d lost = _mm512_setzero_pd(), sq_low = lost;
    // A lane takes at most kLongestSegment / 8 bytes, far from 2^31.
    __m256i sum_high = _mm256_setzero_si256(), sum_low = sum_high;
    for (std::int64_t j = segment.begin; j < segment.end; j += 8) {
      const ColumnPiece z = column_piece(args, j, segment.end);
      const __m512d in_steps = _mm512_mul_pd(z.centred, _mm512_set1_pd(inverse));
      const __m256i rounded = _mm512_cvtpd_epi32(in_steps);
      const __m512d rounded_f64 = _mm512_cvtepi32_pd(rounded);
      __m512d kept = rounded_f64;
      // Whole words are stored; beyond the end of the segment they hold zeros.
      const int n = at_most(8, (segment.end - j + 3) / 4 * 4);
      const auto mask = static_cast<__mmask8>((1u << n) - 1);
      const std::int64_t at = j - segment.begin;
      _mm256_mask_cvtepi32_storeu_epi8(high + at, mask, rounded);
      sum_high = _mm256_add_epi32(sum_high, rounded);
      if (segment.doubled) {
        const __m256i finer =
            _mm512_cvtpd_epi32(_mm512_mul_pd(_mm512_sub_pd(in_steps, rounded_f64), low_steps));
        _mm256_mask_cvtepi32_storeu_epi8(low + at, mask, finer);
        _mm256_mask_cvtepi32_storeu_epi8(high_again + at, mask, rounded);
        sum_low = _mm256_add_epi32(sum_low, finer);
        const __m512d low_f64 = _mm512_div_pd(_mm512_cvtepi32_pd(finer), low_steps);
        kept = _mm512_add_pd(kept, low_f64);
        sq_low = _mm512_fmadd_pd(low_f64, low_f64, sq_low);
      }
      const __m512d rest =
          _mm512_fnmadd_pd(kept, _mm512_set1_pd(inverse > 0 ? step : 0), z.centred);
      lost = _mm512_fmadd_pd(rest, rest, lost);
    }
    args.sq_norms[s] = _mm512_reduce_add_pd(norm);
    args.sq_norms_uncentred[s] = _mm512_reduce_add_pd(uncentred);
    args.sq_lost[s] = _mm512_reduce_add_pd(lost);
    args.sq_low[s] = _mm512_reduce_add_pd(sq_low) * step * step;
    const double scale = inverse > 0 ? -2.0 * segment.step * step : 0.0;
    describe_run(scale, sum_of(sum_high));
    if (segment.doubled) describe_run(scale / kLowByte, sum_of(sum_high) + sum_of(sum_low));
  }
}

// The rows pass through a tile that stays in L1 and are transposed in registers: lanes are rows.
template <bool kNorms, class T>
inline void chain_of_rows(const ChainRowsArgs<T>& args) {
  alignas(64) float tile[kBlockPoints * kTileFeatures];
  alignas(64) std::uint32_t square[16 * 16];
  RowLanes unused;
  if (args.cold) {
    const std::int64_t n_bytes = args.n_features * static_cast<std::int64_t>(sizeof(T));
    const void* rows[kBlockPoints];
    for (int p = 0; p < args.n_rows; ++p) rows[p] = args.rows[p];
    Prefetcher now({rows, args.n_rows, n_bytes});
    now.fetch(static_cast<int>(args.n_rows * (n_bytes / 64 + 1)));
  }
  Prefetcher ahead(args.ahead);
  __m512 dots[2] = {}, norms[2] = {};
  const int n_halves = args.n_rows > 16 ? 2 : 1;
  for (int p = args.n_rows; p < 16 * n_halves; ++p) {
    std::memset(tile + p * kTileFeatures, 0, sizeof(float) * kTileFeatures);
  }
  for (std::int64_t d = 0; d < args.n_features; d += kTileFeatures) {
    const int n = at_most(kTileFeatures, args.n_features - d);
    for (int p = 0; p < args.n_rows; ++p) {
      ahead.fetch(n * static_cast<int>(sizeof(T)) / 64 + 1);
      float* y = tile + p * kTileFeatures;
      centre_piece<false>(args.rows[p] + d, args.scale, args.centre + d, n, y, unused);
    }
    for (int j = 0; j < n; j += 16) {
      const int n_left = at_most(16, n - j);
      for (int h = 0; h < n_halves; ++h) {
        transpose_16x16(reinterpret_cast<const std::uint32_t*>(tile + 16 * h * kTileFeatures + j),
                        kTileFeatures, square, 16);
        for (int f = 0; f < n_left; ++f) {
          const __m512 y = _mm512_load_ps(square + 16 * f);
          dots[h] = _mm512_fmadd_ps(y, _mm512_set1_ps(args.column[d + j + f]), dots[h]);
          if constexpr (kNorms) norms[h] = _mm512_fmadd_ps(y, y, norms[h]);
        }
      }
    }
  }
  for (int h = 0; h < 2; ++h) {
    _mm512_storeu_ps(args.dots + 16 * h, dots[h]);
    if constexpr (kNorms) _mm512_storeu_ps(args.norms + 16 * h, norms[h]);
  }
}

template <class T>
void chain_rows(const ChainRowsArgs<T>& args) noexcept {
  args.norms != nullptr ? chain_of_rows<true>(args) : chain_of_rows<false>(args);
}

}  // namespace
