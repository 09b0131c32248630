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

// Words of a tile: of 16 bits two, of bytes four features each.
template <bool kWide>
constexpr int kFeaturesOfWord = kWide ? 2 : 4;
template <bool kWide>
constexpr int kTileWords = kTileFeatures / kFeaturesOfWord<kWide>;

// Neither std::min nor a member of ByteSegment: those would be inline functions of this level that
// the linker may share.
inline int at_most(int most, std::int64_t n) { return n < most ? static_cast<int>(n) : most; }
inline std::int64_t words_of(const ByteSegment& segment) {
  return (segment.end - segment.begin + 3) / 4 * (segment.wide ? 2 : 1);
}

// The steps of a segment.
struct ByteSteps {
  __m512 step, per_step;
  __m512i most, least;
  template <bool kWide>
  static ByteSteps of(const ByteSegment& segment) {
    return {_mm512_set1_ps(segment.step), _mm512_set1_ps(1 / segment.step),
            _mm512_set1_epi32(segment.levels),
            _mm512_set1_epi32(kWide ? -segment.levels : -kByteLevels - 1)};
  }
};

// What is measured of a row on the way, a sum in every lane.
struct Measured {
  __m512 sq_norm, sq_lost;
};

// Sixteen centred features in steps.
inline __m512i round_to_steps(__m512 v, const ByteSteps& steps, Measured& measured) {
  measured.sq_norm = _mm512_fmadd_ps(v, v, measured.sq_norm);
  const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(v, steps.per_step));
  const __m512i kept = _mm512_max_epi32(_mm512_min_epi32(rounded, steps.most), steps.least);
  const __m512 rest = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(kept), steps.step, v);
  measured.sq_lost = _mm512_fmadd_ps(rest, rest, measured.sq_lost);
  return kept;
}

// Bytes of points are unsigned in the products: biased by 128.
template <bool kWide>
inline void store_points(std::uint32_t* to, __m512i v) {
  if constexpr (kWide) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(v));
  } else {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_xor_si128(_mm512_cvtepi32_epi8(v), _mm_set1_epi8(-128)));
  }
}
// Four vectors of bytes at once, for a narrowing of one costs as much. Packing takes 128 bits of
// each in turn, which the permutation puts in order again.
inline void store_bytes(std::uint32_t* to, const __m512i (&v)[4]) {
  const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i packed =
      _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
  _mm512_storeu_si512(
      to, _mm512_xor_si512(_mm512_permutexvar_epi32(in_order, packed), _mm512_set1_epi8(-128)));
}

// n features of one row; whole vectors of 16 are stored, with zeros beyond the end.
template <bool kWide, class T>
inline void round_piece(const T* row, PowerOfTwo<T> scale, const T* centre, int n,
                        const ByteSteps& steps, std::uint32_t* to, Measured& measured) {
  int j = 0;
  for (; !kWide && j + 64 <= n; j += 64) {
    __m512i kept[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const int at = j + 16 * v;
      kept[v] = round_to_steps((__m512)rounded(row + at, scale, centre + at), steps, measured);
    }
    store_bytes(to + j / 4, kept);
  }
  for (; j < n; j += 16) {
    T x[16] = {}, m[16] = {};
    const T *from = row + j, *middle = centre + j;
    if (n - j < 16) {
      for (int l = 0; l < n - j; ++l) x[l] = from[l], m[l] = middle[l];
      from = x;
      middle = m;
    }
    store_points<kWide>(to + j / kFeaturesOfWord<kWide>,
                        round_to_steps((__m512)rounded(from, scale, middle), steps, measured));
  }
}

template <int kStride>
inline void transpose_words(const std::uint32_t* tile, int n_words, std::uint32_t* out) {
  int w = 0;
  for (; w + 16 <= n_words; w += 16) {
    for (int p = 0; p < kBlockPoints; p += 16) {
      transpose_16x16(tile + p * kStride + w, kStride, out + w * kBlockPoints + p, kBlockPoints);
    }
  }
  for (; w < n_words; ++w) {
    for (int p = 0; p < kBlockPoints; ++p) out[w * kBlockPoints + p] = tile[p * kStride + w];
  }
}

template <bool kWide, class T>
inline void pack_segment(const ByteRowsArgs<T>& args, const ByteSegment& segment, Prefetcher& ahead,
                         std::uint32_t* out, float* sq_norms, float* sq_lost) {
  constexpr int kStride = kTileWords<kWide>;
  alignas(64) std::uint32_t tile[kBlockPoints * kStride];
  Measured measured[kBlockPoints] = {};
  const ByteSteps steps = ByteSteps::of<kWide>(segment);
  // Rows that are missing are zeros.
  for (int p = args.n_rows; p < kBlockPoints; ++p) {
    std::memset(tile + p * kStride, kWide ? 0 : 0x80, kStride * sizeof(*tile));
  }
  for (std::int64_t d = segment.begin; d < segment.end; d += kTileFeatures) {
    const int n = at_most(kTileFeatures, segment.end - d);
    const int n_words = (n + 3) / 4 * (4 / kFeaturesOfWord<kWide>);
    std::uint32_t* const to = out + (d - segment.begin) / kFeaturesOfWord<kWide> * kBlockPoints;
    for (int p = 0; p < args.n_rows; ++p) {
      // The block is far from the cache where many have been packed since its memory was last used.
      for (int w = p; w < n_words; w += kBlockPoints) {
        __builtin_prefetch(to + w * kBlockPoints, 1);
        __builtin_prefetch(to + w * kBlockPoints + 16, 1);
      }
      ahead.fetch(n * static_cast<int>(sizeof(T)) / 64 + 1);
      Measured row = measured[p];
      round_piece<kWide>(args.rows[p] + d, args.scale, args.centre + d, n, steps,
                         tile + p * kStride, row);
      measured[p] = row;
    }
    transpose_words<kStride>(tile, n_words, to);
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
    if (segment.wide) {
      pack_segment<true>(args, segment, ahead, out, sq_norms, sq_lost);
    } else {
      pack_segment<false>(args, segment, ahead, out, sq_norms, sq_lost);
    }
    out += words_of(segment) * kBlockPoints;
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
  double sq_norm, sq_norm_uncentred, sq_lost, step;
  std::int64_t integers;
};

// Sums come in two parts, for each addition waits for the one before.
constexpr int kParts = 2, kPiece = 8;
struct Parts {
  __m512d part[kParts] = {};
  double sum() const { return _mm512_reduce_add_pd(_mm512_add_pd(part[0], part[1])); }
};

// Eight integers of a column, those of whole groups of four: beyond the end of the segment they
// are zeros.
template <bool kWide>
inline void store_integers(void* to, __m512d integers, std::int64_t n_left) {
  // Adding 1.5 * 2^52 leaves them in the low bits.
  const __m512i bits =
      _mm512_castpd_si512(_mm512_add_pd(integers, _mm512_set1_pd(ddkern::simd::kRound)));
  const __m128i narrowed = kWide ? _mm512_cvtepi64_epi16(bits) : _mm512_cvtepi64_epi8(bits);
  constexpr int kBytes = kWide ? 2 : 1;
  if (n_left >= kPiece) {
    std::memcpy(to, &narrowed, kBytes * kPiece);
  } else if (n_left > 0) {
    std::memcpy(to, &narrowed, static_cast<std::size_t>((n_left + 3) / 4 * 4 * kBytes));
  }
}

// Of what is not finite nothing is used.
inline std::int64_t whole(double sum) {
  return sum > -0x1p40 && sum < 0x1p40 ? static_cast<std::int64_t>(sum) : 0;
}

template <bool kWide, class T>
inline ColumnSums pack_column_segment(const ByteColumnArgs<T>& args, const ByteSegment& segment,
                                      void* column) {
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
  const auto step = static_cast<float>(most / segment.levels * (1 + 0x1p-20));
  const double inverse = step > 0x1p-120f && step < 0x1p120f ? 1.0 / step : 0.0;
  const __m512d steps = _mm512_set1_pd(inverse > 0 ? step : 0);
  const __m512d per_step = _mm512_set1_pd(inverse);
  Parts lost, integers;
  for (std::int64_t j = segment.begin; j < segment.end; j += kStep) {
#pragma GCC unroll 2
    for (int i = 0; i < kParts; ++i) {
      const std::int64_t at = j - segment.begin + i * kPiece;
      const ColumnPiece z = column_piece(args, segment.begin + at, segment.end);
      const __m512d kept = _mm512_roundscale_pd(_mm512_mul_pd(z.centred, per_step),
                                                _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      store_integers<kWide>(static_cast<std::int8_t*>(column) + at * (kWide ? 2 : 1), kept,
                            segment.end - segment.begin - at);
      integers.part[i] = _mm512_add_pd(integers.part[i], kept);
      const __m512d rest = _mm512_fnmadd_pd(kept, steps, z.centred);
      lost.part[i] = _mm512_fmadd_pd(rest, rest, lost.part[i]);
    }
  }
  return {norm.sum(), uncentred.sum(), lost.sum(), inverse > 0 ? step : 0.0, whole(integers.sum())};
}

template <class T>
void pack_column_bytes(const ByteColumnArgs<T>& args) noexcept {
  for (std::int64_t s = 0; s < args.n_segments; ++s) {
    const ByteSegment& segment = args.segments[s];
    std::uint32_t* const column = args.column + args.runs[s].column_word;
    const ColumnSums found = segment.wide ? pack_column_segment<true>(args, segment, column)
                                          : pack_column_segment<false>(args, segment, column);
    args.sq_norms[s] = found.sq_norm;
    args.sq_norms_uncentred[s] = found.sq_norm_uncentred;
    args.sq_lost[s] = found.sq_lost;
    const auto scale = static_cast<float>(-2.0 * segment.step * found.step);
    std::memcpy(args.column + s, &scale, sizeof(scale));
    // Takes the bias of the points away again.
    const std::int64_t start = segment.wide ? 0 : -128 * found.integers;
    args.column[args.n_segments + s] = static_cast<std::uint32_t>(start);
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
