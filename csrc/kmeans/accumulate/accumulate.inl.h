// SPDX-License-Identifier: Apache-2.0
// The body of accumulate. Internal linkage only.
#pragma once

#include "core/simd/round.h"
#include "kmeans/accumulate/accumulate.h"

namespace {

using namespace ddkern::simd;
using ddkern::kmeans::AddArgs;
using ddkern::kmeans::kRowsAtOnce;

template <bool kWeighted>
inline i64x8 addend(const f64x8& v, double weight) {
  if constexpr (!kWeighted) return round_f64x8(v);
  const f64x8 q = (v + kRound) - kRound;
  return round_wide_f64x8(q * weight);
}
template <bool kWeighted>
inline std::int64_t addend(double v, double weight) {
  if constexpr (!kWeighted) return round_f64(v);
  const double q = (v + kRound) - kRound;
  return round_wide_f64(q * weight);
}

// Features at a time: as many as the registers hold sums for.
#if defined(__AVX512F__)
constexpr int kStrip = 64;
#else
constexpr int kStrip = 16;
#endif

template <bool kWeighted, bool kMove, bool kNorms, class T>
inline void add_rows(const AddArgs<T>& args) {
  alignas(64) double lanes[kRowsAtOnce][16];
  if constexpr (kNorms) {
    std::memset(lanes, 0, sizeof(lanes[0]) * static_cast<std::size_t>(args.n_rows));
  }
  Prefetcher ahead(args.ahead);
  std::int64_t j = 0;
  for (; j + kStrip <= args.n; j += kStrip) {
    i64x8 sum[kStrip / 8];
    f64x8 shift[kStrip / 8];
    for (int v = 0; v < kStrip / 8; ++v) {
      sum[v] = load<i64x8>(args.sum + j + 8 * v);
      shift[v] = load<f64x8>(args.shift + j + 8 * v);
    }
    for (int r = 0; r < args.n_rows; ++r) {
      const T* x = args.rows[r] + j;
      ahead.fetch(kStrip * static_cast<int>(sizeof(T)) / 64 + 1);
      const double weight = kWeighted ? args.weights[r] : 1.0;
      f64x8 norm[2];
      if constexpr (kNorms) {
        norm[0] = load<f64x8>(lanes[r]);
        norm[1] = load<f64x8>(lanes[r] + 8);
      }
      for (int v = 0; v < kStrip / 8; ++v) {
        const f64x8 value = load_f64x8(x + 8 * v) * args.scale - shift[v];
        const i64x8 q = addend<kWeighted>(value, weight);
        if constexpr (kMove) {
          sum[v] -= q;
          std::int64_t* to = args.to[r] + j + 8 * v;
          store(to, load<i64x8>(to) + q);
        } else {
          sum[v] += q;
        }
        if constexpr (kNorms) norm[v % 2] = norm[v % 2] + value * value;
      }
      if constexpr (kNorms) {
        store(lanes[r], norm[0]);
        store(lanes[r] + 8, norm[1]);
      }
    }
    for (int v = 0; v < kStrip / 8; ++v) store(args.sum + j + 8 * v, sum[v]);
  }
  for (int r = 0; r < args.n_rows; ++r) {
    const double weight = kWeighted ? args.weights[r] : 1.0;
    for (std::int64_t rest = j; rest < args.n; ++rest) {
      const double value = static_cast<double>(args.rows[r][rest]) * args.scale - args.shift[rest];
      const std::int64_t q = addend<kWeighted>(value, weight);
      if constexpr (kMove) {
        args.sum[rest] -= q;
        args.to[r][rest] += q;
      } else {
        args.sum[rest] += q;
      }
      if constexpr (kNorms) lanes[r][rest % 16] += value * value;
    }
    if constexpr (kNorms) args.sq_norms[r] = add_16_lanes(lanes[r]);
  }
}

template <bool kWeighted, class T>
inline void add_or_move(const AddArgs<T>& args) {
  if (args.to != nullptr) return add_rows<kWeighted, true, false>(args);
  if (args.sq_norms != nullptr) return add_rows<kWeighted, false, true>(args);
  add_rows<kWeighted, false, false>(args);
}

template <class T>
void add(const AddArgs<T>& args) noexcept {
  // A weight of 1 needs no product: w * q is q.
  if (args.weights == nullptr) {
    add_or_move<false>(args);
  } else {
    add_or_move<true>(args);
  }
}

template <class T>
void finish(const std::int64_t* sum, double total, double factor, const T* centre, double unscale,
            std::int64_t n, double* means, T* centroid) noexcept {
  for (std::int64_t j = 0; j < n; ++j) {
    const double mean = static_cast<double>(sum[j]) / total * factor;
    if (means != nullptr) means[j] = mean;
    centroid[j] = static_cast<T>((mean + static_cast<double>(centre[j])) * unscale);
  }
}

}  // namespace
