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
// Four vectors at once, for a narrowing of one costs as much. Packing takes 128 bits of each in
// turn, which the permutation puts in order again.
inline void store_biased(void* to, const __m512i (&v)[4]) {
  const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i packed =
      _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
  _mm512_storeu_si512(
      to, _mm512_xor_si512(_mm512_permutexvar_epi32(in_order, packed), _mm512_set1_epi8(-128)));
}

// The steps of a segment, and what is measured of a row on the way, a sum in every lane.
struct ByteSteps {
  __m512 high, per_high, low, per_low;
  explicit ByteSteps(const ByteSegment& segment)
      : high(_mm512_set1_ps(segment.step)), per_high(_mm512_set1_ps(1 / segment.step)),
        low(_mm512_set1_ps(segment.step / kLowByte)),
        per_low(_mm512_set1_ps(kLowByte / segment.step)) {}
};
struct Measured {
  __m512 sq_norm, sq_lost;
};

// Sixteen centred features as integers.
template <bool kDoubled>
inline void round_to_bytes(__m512 v, const ByteSteps& steps, __m512i& high, __m512i& low,
                           Measured& measured) {
  measured.sq_norm = _mm512_fmadd_ps(v, v, measured.sq_norm);
  high = to_bytes_range(_mm512_mul_ps(v, steps.per_high));
  __m512 rest = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(high), steps.high, v);
  if constexpr (kDoubled) {
    low = to_bytes_range(_mm512_mul_ps(rest, steps.per_low));
    rest = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(low), steps.low, rest);
  }
  measured.sq_lost = _mm512_fmadd_ps(rest, rest, measured.sq_lost);
}

// n features of one row; whole words of 16 are stored, with zeros beyond the end.
template <bool kDoubled, class T>
inline void round_piece(const T* row, PowerOfTwo<T> scale, const T* centre, int n,
                        const ByteSteps& steps, std::uint32_t* high, std::uint32_t* low,
                        Measured& measured) {
  int j = 0;
  for (; j + 64 <= n; j += 64) {
    __m512i highs[4], lows[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const int at = j + 16 * v;
      round_to_bytes<kDoubled>((__m512)rounded(row + at, scale, centre + at), steps, highs[v],
                               lows[v], measured);
    }
    store_biased(high + j / 4, highs);
    if constexpr (kDoubled) store_biased(low + j / 4, lows);
  }
  for (; j < n; j += 16) {
    T x[16] = {}, m[16] = {};
    const T *from = row + j, *middle = centre + j;
    if (n - j < 16) {
      for (int l = 0; l < n - j; ++l) x[l] = from[l], m[l] = middle[l];
      from = x;
      middle = m;
    }
    __m512i high_part, low_part;
    round_to_bytes<kDoubled>((__m512)rounded(from, scale, middle), steps, high_part, low_part,
                             measured);
    store_biased(high + j / 4, high_part);
    if constexpr (kDoubled) store_biased(low + j / 4, low_part);
  }
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

template <bool kDoubled, class T>
inline void pack_segment(const ByteRowsArgs<T>& args, const ByteSegment& segment, Prefetcher& ahead,
                         std::uint32_t* out, float* sq_norms, float* sq_lost) {
  alignas(64) std::uint32_t high[kBlockPoints * kTileWords], low[kBlockPoints * kTileWords];
  Measured measured[kBlockPoints] = {};
  const ByteSteps steps(segment);
  // The bytes of zeros.
  for (int p = args.n_rows; p < kBlockPoints; ++p) {
    std::memset(high + p * kTileWords, 0x80, kTileWords * sizeof(*high));
    std::memset(low + p * kTileWords, 0x80, kTileWords * sizeof(*low));
  }
  for (std::int64_t d = segment.begin; d < segment.end; d += kTileFeatures) {
    const int n = at_most(kTileFeatures, segment.end - d);
    const int n_words = (n + 3) / 4;
    std::uint32_t* const to = out + (d - segment.begin) / 4 * kBlockPoints;
    for (int p = 0; p < args.n_rows; ++p) {
      // The block is far from the cache where many have been packed since its memory was last used.
      if (p < n_words) {
        __builtin_prefetch(to + p * kBlockPoints, 1);
        __builtin_prefetch(to + p * kBlockPoints + 16, 1);
      }
      ahead.fetch(n * static_cast<int>(sizeof(T)) / 64 + 1);
      Measured row = measured[p];
      round_piece<kDoubled>(args.rows[p] + d, args.scale, args.centre + d, n, steps,
                            high + p * kTileWords, low + p * kTileWords, row);
      measured[p] = row;
    }
    transpose_words(high, n_words, to);
    if constexpr (kDoubled) transpose_words(low, n_words, to + words_of(segment) * kBlockPoints);
  }
  for (int p = 0; p < kBlockPoints; ++p) {
    sq_norms[p] = _mm512_reduce_add_ps(measured[p].sq_norm);
    sq_lost[p] = _mm512_reduce_add_ps(measured[p].sq_lost);
  }
}

template <class T>
void pack_bytes(const ByteRowsArgs<T>& args) noexcept {
  Prefetcher ahead(args.ahead);
  std::uint32_t* out = args.packed;
  for (std::int64_t s = 0; s < args.n_segments; ++s) {
    const ByteSegment& segment = args.segments[s];
    float *sq_norms = args.sq_norms + s * kBlockPoints, *sq_lost = args.sq_lost + s * kBlockPoints;
    if (segment.doubled) {
      pack_segment<true>(args, segment, ahead, out, sq_norms, sq_lost);
    } else {
      pack_segment<false>(args, segment, ahead, out, sq_norms, sq_lost);
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

// Of one segment of a column.
struct ColumnSums {
  double norm, uncentred, lost, low, step;  // the first four are squares
  std::int64_t high_bytes, low_bytes;       // what the bytes add up to
};

// Sums come in two parts, for each addition waits for the one before.
constexpr int kParts = 2, kPiece = 8;
struct Parts {
  __m512d part[kParts] = {};
  double sum() const { return _mm512_reduce_add_pd(_mm512_add_pd(part[0], part[1])); }
};

// Eight integers as bytes, those of whole words: beyond the end of the segment they hold zeros.
inline void store_column_bytes(std::int8_t* to, __m512d integers, std::int64_t n_left) {
  // Adding 1.5 * 2^52 leaves them in the low bits.
  const __m512i bits =
      _mm512_castpd_si512(_mm512_add_pd(integers, _mm512_set1_pd(ddkern::simd::kRound)));
  const __m128i bytes = _mm512_cvtepi64_epi8(bits);
  if (n_left >= kPiece) return _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes);
  if (n_left <= 0) return;
  std::int8_t few[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(few), bytes);
  std::memcpy(to, few, static_cast<std::size_t>((n_left + 3) / 4 * 4));
}

inline __m512d to_integers(__m512d v) {
  return _mm512_roundscale_pd(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// A sum of bytes; of what is not finite nothing is used.
inline std::int64_t whole(double sum) {
  return sum > -0x1p40 && sum < 0x1p40 ? static_cast<std::int64_t>(sum) : 0;
}

template <bool kDoubled, class T>
inline ColumnSums pack_column_segment(const ByteColumnArgs<T>& args, const ByteSegment& segment,
                                      std::int8_t* high) {
  constexpr std::int64_t kStep = kParts * kPiece;
  Parts norm, uncentred, largest;
  for (std::int64_t j = segment.begin; j < segment.end; j += kStep) {
#pragma GCC unroll 2
    for (int i = 0; i < kParts; ++i) {
      const ColumnPiece z = column_piece(args, j + i * kPiece, segment.end);
      norm.part[i] = _mm512_fmadd_pd(z.centred, z.centred, norm.part[i]);
      uncentred.part[i] = _mm512_fmadd_pd(z.stored, z.stored, uncentred.part[i]);
      largest.part[i] = _mm512_max_pd(largest.part[i], _mm512_abs_pd(z.centred));
    }
  }
  const double most = _mm512_reduce_max_pd(_mm512_max_pd(largest.part[0], largest.part[1]));
  const auto step = static_cast<float>(most / kByteLevels * (1 + 0x1p-20));
  const double inverse = step > 0x1p-120f && step < 0x1p120f ? 1.0 / step : 0.0;
  const __m512d steps = _mm512_set1_pd(inverse > 0 ? step : 0);
  const __m512d per_step = _mm512_set1_pd(inverse), low_steps = _mm512_set1_pd(kLowByte);
  std::int8_t* const low = high + 4 * words_of(segment);
  std::int8_t* const high_again = low + 4 * words_of(segment);
  Parts lost, sq_low, high_bytes, low_bytes;
  for (std::int64_t j = segment.begin; j < segment.end; j += kStep) {
#pragma GCC unroll 2
    for (int i = 0; i < kParts; ++i) {
      const std::int64_t at = j - segment.begin + i * kPiece;
      const std::int64_t n_left = segment.end - segment.begin - at;
      const ColumnPiece z = column_piece(args, segment.begin + at, segment.end);
      const __m512d in_steps = _mm512_mul_pd(z.centred, per_step);
      const __m512d rounded = to_integers(in_steps);
      __m512d kept = rounded;
      store_column_bytes(high + at, rounded, n_left);
      high_bytes.part[i] = _mm512_add_pd(high_bytes.part[i], rounded);
      if constexpr (kDoubled) {
        const __m512d finer =
            to_integers(_mm512_mul_pd(_mm512_sub_pd(in_steps, rounded), low_steps));
        store_column_bytes(low + at, finer, n_left);
        store_column_bytes(high_again + at, rounded, n_left);
        low_bytes.part[i] = _mm512_add_pd(low_bytes.part[i], finer);
        const __m512d in_high_steps = _mm512_div_pd(finer, low_steps);
        kept = _mm512_add_pd(kept, in_high_steps);
        sq_low.part[i] = _mm512_fmadd_pd(in_high_steps, in_high_steps, sq_low.part[i]);
      }
      const __m512d rest = _mm512_fnmadd_pd(kept, steps, z.centred);
      lost.part[i] = _mm512_fmadd_pd(rest, rest, lost.part[i]);
    }
  }
  return {norm.sum(),
          uncentred.sum(),
          lost.sum(),
          sq_low.sum() * step * step,
          inverse > 0 ? step : 0.0,
          whole(high_bytes.sum()),
          whole(low_bytes.sum())};
}

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
    auto* const high = reinterpret_cast<std::int8_t*>(header + args.runs[run].column_word);
    const ColumnSums found = segment.doubled ? pack_column_segment<true>(args, segment, high)
                                             : pack_column_segment<false>(args, segment, high);
    args.sq_norms[s] = found.norm;
    args.sq_norms_uncentred[s] = found.uncentred;
    args.sq_lost[s] = found.lost;
    args.sq_low[s] = found.low;
    const double scale = -2.0 * segment.step * found.step;
    describe_run(scale, found.high_bytes);
    if (segment.doubled) describe_run(scale / kLowByte, found.high_bytes + found.low_bytes);
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
