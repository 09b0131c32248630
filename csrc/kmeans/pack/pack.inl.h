// SPDX-License-Identifier: Apache-2.0
// The body of pack. Internal linkage only.
//
// A block goes through a tile of kTileFeatures features that stays in L1: rows are read and centred
// along the row, then the tile is transposed into place.
#pragma once

#include <limits>

#include "core/simd/round.h"
#include "kmeans/block.h"
#include "kmeans/pack/pack.h"

namespace {

using namespace ddkern::simd;
using ddkern::kmeans::ColumnArgs;
using ddkern::kmeans::kBlockPoints;
using ddkern::kmeans::PackArgs;
using ddkern::kmeans::PowerOfTwo;
using ddkern::kmeans::SurveyArgs;

constexpr int kTileFeatures = 128;

template <class T>
struct Bits;
template <>
struct Bits<float> {
  using Word = std::uint32_t;
  static constexpr Word kMagnitude = 0x7fffffffu, kInfinity = 0x7f800000u;
};
template <>
struct Bits<double> {
  using Word = std::uint64_t;
  static constexpr Word kMagnitude = 0x7fffffffffffffffull, kInfinity = 0x7ff0000000000000ull;
};

template <class T>
bool small_integers(const T* row, std::int64_t n_features) noexcept {
  // Adding and taking away 1.5 * 2^(digits - 1) rounds to an integer.
  constexpr T kRoundToInteger =
      static_cast<T>(1.5) *
      static_cast<T>(std::uint64_t{1} << (std::numeric_limits<T>::digits - 1));
  for (std::int64_t begin = 0; begin < n_features; begin += 64) {
    const std::int64_t end = begin + 64 < n_features ? begin + 64 : n_features;
    int n_broken = 0;
    for (std::int64_t j = begin; j < end; ++j) {
      const T rounded = (row[j] + kRoundToInteger) - kRoundToInteger;
      n_broken += (rounded != row[j]) | (row[j] > 256) | (row[j] < -256);
    }
    if (n_broken != 0) return false;
  }
  return true;
}

// Sixteen values in units of the grid, as integers.
inline void add_on_grid(const f32x16& v, PowerOfTwo<float> to_grid, i32x16& sum) {
  const f32x16 constant = f32x16{} + 0x1.8p23f;
  const f32x16 shifted = v * to_grid.first * to_grid.second + constant;
  sum += load<i32x16>(&shifted) - load<i32x16>(&constant);
}
inline void add_on_grid(double v, PowerOfTwo<double> to_grid, std::int64_t& sum) {
  sum += round_f64(v * to_grid.first * to_grid.second);
}
inline void add_on_grid(float v, PowerOfTwo<float> to_grid, std::int64_t& sum) {
  const float constant = 0x1.8p23f, shifted = v * to_grid.first * to_grid.second + constant;
  std::int32_t bits, zero;
  std::memcpy(&bits, &shifted, sizeof(bits));
  std::memcpy(&zero, &constant, sizeof(zero));
  sum += static_cast<std::int32_t>(static_cast<std::uint32_t>(bits) -
                                   static_cast<std::uint32_t>(zero));
}

// One feature of all rows; for doubles and for what is left of a row of floats.
template <class T>
inline void survey_feature(SurveyArgs<T>& args, std::int64_t j, typename Bits<T>::Word& largest) {
  using Word = typename Bits<T>::Word;
  for (int p = 0; p < args.n_rows; ++p) {
    const T v = args.rows[p][j];
    Word bits;
    std::memcpy(&bits, &v, sizeof(bits));
    bits &= Bits<T>::kMagnitude;
    largest = bits > largest ? bits : largest;
    args.low[j] = v < args.low[j] ? v : args.low[j];
    args.high[j] = v > args.high[j] ? v : args.high[j];
    add_on_grid(v, args.to_grid, args.sums[j]);
  }
}

// First every row from end to end, the order in which memory is fast; then, in cache, a strip of a
// few features of all rows at a time, so that what accumulates stays in registers.
inline std::int64_t survey_vectors(SurveyArgs<float>& args, std::uint32_t& largest) {
#if defined(__AVX512F__)
  constexpr int kVectors = 4;
#else
  constexpr int kVectors = 1;
#endif
  constexpr int kStrip = 16 * kVectors;
  const std::int64_t n_in_strips = args.n_features / kStrip * kStrip;
  u32x16 most[4] = {};
  for (int p = 0; p < args.n_rows; ++p) {
    for (std::int64_t j = 0; j < n_in_strips; j += 16) {
      const u32x16 magnitude = load<u32x16>(args.rows[p] + j) & Bits<float>::kMagnitude;
      u32x16& so_far = most[j / 16 % 4];
      so_far = magnitude > so_far ? magnitude : so_far;
    }
  }
  for (const u32x16& part : most) {
    for (int l = 0; l < 16; ++l) largest = part[l] > largest ? part[l] : largest;
  }
  for (std::int64_t j = 0; j < n_in_strips; j += kStrip) {
    f32x16 low[kVectors], high[kVectors];
    i32x16 sum[kVectors] = {};
    for (int v = 0; v < kVectors; ++v) {
      low[v] = load<f32x16>(args.low + j + 16 * v);
      high[v] = load<f32x16>(args.high + j + 16 * v);
    }
    for (int p = 0; p < args.n_rows; ++p) {
      for (int v = 0; v < kVectors; ++v) {
        const f32x16 value = load<f32x16>(args.rows[p] + j + 16 * v);
        low[v] = value < low[v] ? value : low[v];
        high[v] = value > high[v] ? value : high[v];
        add_on_grid(value, args.to_grid, sum[v]);
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      store(args.low + j + 16 * v, low[v]);
      store(args.high + j + 16 * v, high[v]);
      for (int l = 0; l < 16; ++l) args.sums[j + 16 * v + l] += sum[v][l];
    }
  }
  return n_in_strips;
}
inline std::int64_t survey_vectors(SurveyArgs<double>&, std::uint64_t&) { return 0; }

template <class T>
void survey(SurveyArgs<T>& args) noexcept {
  // Magnitudes of finite numbers order like their bits, and NaN and infinity come after all of
  // them.
  typename Bits<T>::Word largest = 0;
  for (std::int64_t j = survey_vectors(args, largest); j < args.n_features; ++j) {
    survey_feature(args, j, largest);
  }
  args.finite = largest < Bits<T>::kInfinity;
  T max_abs;
  std::memcpy(&max_abs, &largest, sizeof(max_abs));
  args.max_abs = max_abs;
}

inline float centred(float x, PowerOfTwo<float> scale, float centre) {
  return x * scale.first * scale.second - centre;
}
inline float centred(double x, PowerOfTwo<double> scale, double centre) {
  return static_cast<float>(x * scale.first * scale.second - centre);
}

// Sixteen features as float32 and, for the norm, before they were rounded to it.
struct Centred {
  f32x16 rounded;
  f64x8 exact[2];
};
inline Centred centred_x16(const float* row, PowerOfTwo<float> scale, const float* centre) {
  Centred y;
  y.rounded = load<f32x16>(row) * scale.first * scale.second - load<f32x16>(centre);
  const double whole_scale = static_cast<double>(scale.first) * static_cast<double>(scale.second);
  for (int h = 0; h < 2; ++h) {
    y.exact[h] = load_f64x8(row + 8 * h) * whole_scale - load_f64x8(centre + 8 * h);
  }
  return y;
}
inline Centred centred_x16(const double* row, PowerOfTwo<double> scale, const double* centre) {
  Centred y;
  f32x8 halves[2];
  for (int h = 0; h < 2; ++h) {
    y.exact[h] =
        load<f64x8>(row + 8 * h) * scale.first * scale.second - load<f64x8>(centre + 8 * h);
    halves[h] = narrow(y.exact[h]);
  }
  y.rounded = load<f32x16>(halves);
  return y;
}

// What is measured of a row on the way; lane l holds features l, l + 16, ...
struct RowLanes {
  double sq_norm[16];
  float sq_norm_f32[16];
  float sq_residual[16];
};

inline f32x16 rounded_x16(const float* row, PowerOfTwo<float> scale, const float* centre) {
  return load<f32x16>(row) * scale.first * scale.second - load<f32x16>(centre);
}
inline f32x16 rounded_x16(const double* row, PowerOfTwo<double> scale, const double* centre) {
  return centred_x16(row, scale, centre).rounded;
}

// y[0..n) from a piece of a row that begins at a multiple of 16. kExact asks for the float64 norm.
template <bool kExact, class T>
inline void centre_piece(const T* row, PowerOfTwo<T> scale, const T* centre, int n, float* y,
                         RowLanes& lanes) {
  int j = 0;
  if constexpr (!kExact) {
    for (; j + 16 <= n; j += 16) store(y + j, rounded_x16(row + j, scale, centre + j));
    for (; j < n; ++j) y[j] = centred(row[j], scale, centre[j]);
    return;
  }
  f64x8 low = load<f64x8>(lanes.sq_norm), high = load<f64x8>(lanes.sq_norm + 8);
  for (; j + 16 <= n; j += 16) {
    const Centred v = centred_x16(row + j, scale, centre + j);
    store(y + j, v.rounded);
    low = low + v.exact[0] * v.exact[0];
    high = high + v.exact[1] * v.exact[1];
  }
  store(lanes.sq_norm, low);
  store(lanes.sq_norm + 8, high);
  for (; j < n; ++j) {
    y[j] = centred(row[j], scale, centre[j]);
    const double exact = static_cast<double>(row[j]) * static_cast<double>(scale.first) *
                             static_cast<double>(scale.second) -
                         static_cast<double>(centre[j]);
    lanes.sq_norm[j % 16] += exact * exact;
  }
}

// Simd: kTile and transpose(const uint32* from, row stride, uint32* to, row stride) of a
// kTile x kTile square of words; and for bfloat16 levels round_bf16.
template <class Simd>
inline void transpose_tile(const std::uint32_t* tile, int n_words, std::uint32_t* out) {
  int w = 0;
  for (; w + Simd::kTile <= n_words; w += Simd::kTile) {
    for (int p = 0; p < kBlockPoints; p += Simd::kTile) {
      Simd::transpose(tile + p * kTileFeatures + w, kTileFeatures, out + w * kBlockPoints + p,
                      kBlockPoints);
    }
  }
  for (; w < n_words; ++w) {
    for (int p = 0; p < kBlockPoints; ++p) out[w * kBlockPoints + p] = tile[p * kTileFeatures + w];
  }
}

template <class Simd, class T>
void pack_block(const PackArgs<T>& args) noexcept {
  alignas(64) float tile[kBlockPoints * kTileFeatures];
  alignas(64) RowLanes lanes[kBlockPoints] = {};
  for (std::int64_t d = 0; d < args.n_features; d += kTileFeatures) {
    const int n =
        static_cast<int>(args.n_features - d < kTileFeatures ? args.n_features - d : kTileFeatures);
    for (int p = 0; p < kBlockPoints; ++p) {
      float* y = tile + p * kTileFeatures;
      if (p < args.n_rows) {
        if (args.packed_bf16 != nullptr && args.packed_f32 == nullptr) {
          centre_piece<false>(args.rows[p] + d, args.scale, args.centre + d, n, y, lanes[p]);
        } else {
          centre_piece<true>(args.rows[p] + d, args.scale, args.centre + d, n, y, lanes[p]);
        }
      } else {
        std::memset(y, 0, sizeof(float) * static_cast<std::size_t>(n));
      }
      if (n % 2 != 0) y[n] = 0;  // the other half of the last bfloat16 word
    }
    if (args.packed_f32 != nullptr) {
      transpose_tile<Simd>(reinterpret_cast<const std::uint32_t*>(tile), n,
                           reinterpret_cast<std::uint32_t*>(args.packed_f32 + d * kBlockPoints));
    }
    if constexpr (Simd::kHasBf16) {
      if (args.packed_bf16 != nullptr) {
        alignas(64) std::uint32_t words[kBlockPoints * kTileFeatures];
        const int n_words = (n + 1) / 2;
        for (int p = 0; p < kBlockPoints; ++p) {
          Simd::round_bf16(tile + p * kTileFeatures, n_words, words + p * kTileFeatures,
                           lanes[p].sq_norm_f32, lanes[p].sq_residual);
        }
        transpose_tile<Simd>(words, n_words, args.packed_bf16 + d / 2 * kBlockPoints);
      }
    }
  }
  for (int p = 0; p < kBlockPoints; ++p) {
    const double exact = add_16_lanes(lanes[p].sq_norm);
    double coarse = 0;
    args.sq_residuals[p] = 0;
    for (int l = 0; l < 16; ++l) {
      coarse += lanes[p].sq_norm_f32[l];
      args.sq_residuals[p] += lanes[p].sq_residual[l];
    }
    args.sq_norms[p] = args.packed_bf16 != nullptr && args.packed_f32 == nullptr ? coarse : exact;
  }
}

// Round to bfloat16, ties to even, leaving a float32 with 16 zero bits.
inline f32x8 round_to_bf16(const f32x8& v) {
  typedef std::uint32_t u32x8 __attribute__((vector_size(32)));
  u32x8 bits = load<u32x8>(&v);
  bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  return load<f32x8>(&bits);
}

// The sums are only used as bounds, with room for their rounding: their order is free.
template <class T>
void pack_column(ColumnArgs<T>& args) noexcept {
  f64x8 norm{}, residual{}, uncentred{};
  for (std::int64_t j = 0; j < args.n_features; j += 8) {
    const std::int64_t left = args.n_features - j;
    T c[8] = {}, m[8] = {};
    const T* from = args.centroid + j;
    const T* centre = args.centre + j;
    if (left < 8) {
      for (int l = 0; l < left; ++l) c[l] = from[l], m[l] = centre[l];
      from = c;
      centre = m;
    }
    const f64x8 stored = load_f64x8(from) * args.scale;
    const f64x8 z = stored - load_f64x8(centre);
    f32x8 packed = narrow(z);
    if (args.column_bf16 != nullptr) packed = round_to_bf16(packed);
    const f64x8 lost = z - widen(packed);
    norm = norm + z * z;
    residual = residual + lost * lost;
    uncentred = uncentred + stored * stored;
    const f32x8 doubled = packed * -2.0f;
    float out[8];
    store(out, doubled);
    const int n = static_cast<int>(left < 8 ? left : 8);
    if (args.column_bf16 != nullptr) {
      for (int l = 0; l < n; l += 2) {
        std::uint32_t low, high;
        std::memcpy(&low, out + l, sizeof(low));
        std::memcpy(&high, out + l + 1, sizeof(high));
        args.column_bf16[(j + l) / 2] = (low >> 16) | (high & 0xffff0000u);
      }
    } else {
      std::memcpy(args.column_f32 + j, out, sizeof(float) * static_cast<std::size_t>(n));
    }
  }
  args.sq_norm = args.sq_residual = args.sq_norm_uncentred = 0;
  for (int l = 0; l < 8; ++l) {
    args.sq_norm += norm[l];
    args.sq_residual += residual[l];
    args.sq_norm_uncentred += uncentred[l];
  }
}

}  // namespace
