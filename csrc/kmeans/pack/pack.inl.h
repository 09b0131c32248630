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

// Values in units of the grid, as integers.
inline void add_on_grid(const floats& v, PowerOfTwo<float> to_grid, int32s& sum) {
  const floats constant = floats{} + 0x1.8p23f;
  const floats shifted = v * to_grid.first * to_grid.second + constant;
  sum += load<int32s>(&shifted) - load<int32s>(&constant);
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
  constexpr int kVectors = 4;
  constexpr int kStrip = kFloats * kVectors;
  const std::int64_t n_in_strips = args.n_features / kStrip * kStrip;
  // Without their sign the bits of numbers are integers that are not negative.
  int32s most[kVectors] = {};
  for (int p = 0; p < args.n_rows; ++p) {
    for (std::int64_t j = 0; j < n_in_strips; j += kStrip) {
      for (int v = 0; v < kVectors; ++v) {
        const int32s bits = load<int32s>(args.rows[p] + j + kFloats * v);
        most[v] = greater(bits & static_cast<std::int32_t>(Bits<float>::kMagnitude), most[v]);
      }
    }
  }
  for (const int32s& part : most) {
    for (int l = 0; l < kFloats; ++l) {
      const auto magnitude = static_cast<std::uint32_t>(part[l]);
      largest = magnitude > largest ? magnitude : largest;
    }
  }
  for (std::int64_t j = 0; j < n_in_strips; j += kStrip) {
    floats low[kVectors], high[kVectors];
    int32s sum[kVectors] = {};
    for (int v = 0; v < kVectors; ++v) {
      low[v] = load<floats>(args.low + j + kFloats * v);
      high[v] = load<floats>(args.high + j + kFloats * v);
    }
    for (int p = 0; p < args.n_rows; ++p) {
      for (int v = 0; v < kVectors; ++v) {
        const floats value = load<floats>(args.rows[p] + j + kFloats * v);
        low[v] = lesser(value, low[v]);
        high[v] = greater(value, high[v]);
        add_on_grid(value, args.to_grid, sum[v]);
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      store(args.low + j + kFloats * v, low[v]);
      store(args.high + j + kFloats * v, high[v]);
      for (int l = 0; l < kFloats; ++l) args.sums[j + kFloats * v + l] += sum[v][l];
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

// kFloats features as float32.
inline floats rounded(const float* row, PowerOfTwo<float> scale, const float* centre) {
  return load<floats>(row) * scale.first * scale.second - load<floats>(centre);
}
inline floats rounded(const double* row, PowerOfTwo<double> scale, const double* centre) {
  half_floats halves[2];
  for (int h = 0; h < 2; ++h) {
    halves[h] = narrow(load<doubles>(row + kDoubles * h) * scale.first * scale.second -
                       load<doubles>(centre + kDoubles * h));
  }
  return load<floats>(halves);
}

// What is measured of a row on the way; lane l holds features l, l + 16, ...
struct RowLanes {
  double sq_norm[16];
  float sq_norm_f32[16];
  float sq_residual[16];
};

// y[0..n) from a piece of a row that begins at a multiple of 16. kExact asks for the norm from
// before the rounding to float32, in float64.
template <bool kExact, class T>
inline void centre_piece(const T* row, PowerOfTwo<T> scale, const T* centre, int n, float* y,
                         RowLanes& lanes) {
  const double whole_scale = static_cast<double>(scale.first) * static_cast<double>(scale.second);
  int j = 0;
  for (; j + 16 <= n; j += 16) {
    for (int v = j; v < j + 16; v += kFloats) store(y + v, rounded(row + v, scale, centre + v));
    if constexpr (kExact) {
      for (int v = 0; v < 16; v += kDoubles) {
        const doubles exact =
            load_doubles(row + j + v) * whole_scale - load_doubles(centre + j + v);
        store(lanes.sq_norm + v, load<doubles>(lanes.sq_norm + v) + exact * exact);
      }
    }
  }
  for (; j < n; ++j) {
    y[j] = centred(row[j], scale, centre[j]);
    if constexpr (!kExact) continue;
    const double exact = static_cast<double>(row[j]) * whole_scale - static_cast<double>(centre[j]);
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
inline half_floats round_to_bf16(const half_floats& v) {
  typedef std::uint32_t Bits __attribute__((vector_size(sizeof(half_floats))));
  Bits bits = load<Bits>(&v);
  bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  return load<half_floats>(&bits);
}

// The sums are only used as bounds, with room for their rounding: their order is free.
template <class T>
void pack_column(ColumnArgs<T>& args) noexcept {
  doubles norm{}, residual{}, uncentred{};
  for (std::int64_t j = 0; j < args.n_features; j += kDoubles) {
    const std::int64_t left = args.n_features - j;
    T c[kDoubles] = {}, m[kDoubles] = {};
    const T* from = args.centroid + j;
    const T* centre = args.centre + j;
    if (left < kDoubles) {
      for (int l = 0; l < left; ++l) c[l] = from[l], m[l] = centre[l];
      from = c;
      centre = m;
    }
    const doubles stored = load_doubles(from) * args.scale;
    const doubles z = stored - load_doubles(centre);
    half_floats packed = narrow(z);
    if (args.column_bf16 != nullptr) packed = round_to_bf16(packed);
    const doubles lost = z - widen(packed);
    norm = norm + z * z;
    residual = residual + lost * lost;
    uncentred = uncentred + stored * stored;
    const half_floats doubled = packed * -2.0f;
    float out[kDoubles];
    store(out, doubled);
    const int n = static_cast<int>(left < kDoubles ? left : kDoubles);
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
  for (int l = 0; l < kDoubles; ++l) {
    args.sq_norm += norm[l];
    args.sq_residual += residual[l];
    args.sq_norm_uncentred += uncentred[l];
  }
}

}  // namespace
