// SPDX-License-Identifier: Apache-2.0
// The body of accumulate. Internal linkage only.
#pragma once

#include "core/simd/round.h"
#include "kmeans/accumulate/accumulate.h"

namespace {

using namespace ddkern::simd;
using ddkern::kmeans::AddArgs;
using ddkern::kmeans::FinishArgs;
using ddkern::kmeans::kRowsAtOnce;

template <bool kWeighted>
inline int64s addend(const doubles& v, double weight) {
  if constexpr (!kWeighted) return round_doubles(v);
  const doubles q = (v + kRound) - kRound;
  return round_wide_doubles(q * weight);
}
template <bool kWeighted>
inline std::int64_t addend(double v, double weight) {
  if constexpr (!kWeighted) return round_f64(v);
  const double q = (v + kRound) - kRound;
  return round_wide_f64(q * weight);
}

// Registers of sums at a time: as many as there is room for beside the rest.
#if defined(__AVX512F__)
constexpr int kSums = 8;
#else
constexpr int kSums = 4;
#endif
constexpr int kStrip = kSums * kDoubles;  // features
// Registers of the 16 lanes of a norm that a strip goes into.
constexpr int kNorms = kSums < kRegistersOf16 ? kSums : kRegistersOf16;

template <bool kWeighted, bool kMove, bool kWithNorms, class T>
inline void add_rows(const AddArgs<T>& args) {
  alignas(64) double lanes[kRowsAtOnce][16];
  if constexpr (kWithNorms) {
    std::memset(lanes, 0, sizeof(lanes[0]) * static_cast<std::size_t>(args.n_rows));
  }
  Prefetcher ahead(args.ahead);
  std::int64_t j = 0;
  for (; j + kStrip <= args.n; j += kStrip) {
    int64s sum[kSums];
    doubles shift[kSums];
    for (int v = 0; v < kSums; ++v) {
      sum[v] = load<int64s>(args.sum + j + kDoubles * v);
      shift[v] = load<doubles>(args.shift + j + kDoubles * v);
    }
    for (int r = 0; r < args.n_rows; ++r) {
      const T* x = args.rows[r] + j;
      ahead.fetch(kStrip * static_cast<int>(sizeof(T)) / 64 + 1);
      const double weight = kWeighted ? args.weights[r] : 1.0;
      double* const lane = lanes[r] + j % 16;
      doubles norm[kNorms];
      if constexpr (kWithNorms) {
        for (int v = 0; v < kNorms; ++v) norm[v] = load<doubles>(lane + kDoubles * v);
      }
      for (int v = 0; v < kSums; ++v) {
        const doubles value = load_doubles(x + kDoubles * v) * args.scale - shift[v];
        const int64s q = addend<kWeighted>(value, weight);
        if constexpr (kMove) {
          sum[v] -= q;
          std::int64_t* to = args.to[r] + j + kDoubles * v;
          store(to, load<int64s>(to) + q);
        } else {
          sum[v] += q;
        }
        if constexpr (kWithNorms) norm[v % kNorms] = norm[v % kNorms] + value * value;
      }
      if constexpr (kWithNorms) {
        for (int v = 0; v < kNorms; ++v) store(lane + kDoubles * v, norm[v]);
      }
    }
    for (int v = 0; v < kSums; ++v) store(args.sum + j + kDoubles * v, sum[v]);
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
      if constexpr (kWithNorms) lanes[r][rest % 16] += value * value;
    }
    if constexpr (kWithNorms) args.sq_norms[r] = add_16_lanes(lanes[r]);
  }
}

template <bool kWeighted, bool kWithNorms, class T>
inline void scatter_rows(const AddArgs<T>& args) {
  Prefetcher ahead(args.ahead);
  for (int r = 0; r < args.n_rows; ++r) {
    const T* const x = args.rows[r];
    std::int64_t* const to = args.to[r];
    const double weight = kWeighted ? args.weights[r] : 1.0;
    doubles norm[kRegistersOf16] = {};
    std::int64_t j = 0;
    for (; j + 16 <= args.n; j += 16) {
      ahead.fetch(16 * static_cast<int>(sizeof(T)) / 64 + (j == 0 ? 1 : 0));
      for (int v = 0; v < kRegistersOf16; ++v) {
        const std::int64_t at = j + kDoubles * v;
        const doubles value = load_doubles(x + at) * args.scale - load<doubles>(args.shift + at);
        store(to + at, load<int64s>(to + at) + addend<kWeighted>(value, weight));
        if constexpr (kWithNorms) norm[v] = norm[v] + value * value;
      }
    }
    alignas(64) double lanes[16];
    for (int v = 0; v < kRegistersOf16; ++v) store(lanes + kDoubles * v, norm[v]);
    for (; j < args.n; ++j) {
      const double value = static_cast<double>(x[j]) * args.scale - args.shift[j];
      to[j] += addend<kWeighted>(value, weight);
      if constexpr (kWithNorms) lanes[j % 16] += value * value;
    }
    if constexpr (kWithNorms) args.sq_norms[r] = add_16_lanes(lanes);
  }
}

template <bool kWeighted, class T>
inline void add_or_move(const AddArgs<T>& args) {
  if (args.sum == nullptr) {
    return args.sq_norms != nullptr ? scatter_rows<kWeighted, true>(args)
                                    : scatter_rows<kWeighted, false>(args);
  }
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

// kDoubles stored values from doubles.
inline void store_narrowed(float* to, const doubles& v) { store(to, narrow(v)); }
inline void store_narrowed(double* to, const doubles& v) { store(to, v); }

template <bool kKeep, class T>
inline void finish_sum(FinishArgs<T>& args) {
  doubles norms[kRegistersOf16] = {}, offs[kRegistersOf16] = {}, shifts[kRegistersOf16] = {};
  T fresh[16];
  bool moved = false;
  std::int64_t j = 0;
  for (; j + 16 <= args.n; j += 16) {
    T* const centroid = args.centroid + j;
    for (int v = 0; v < kRegistersOf16; ++v) {
      const int at = kDoubles * v;
      const doubles mean = to_doubles(load<int64s>(args.sum + j + at)) / args.total * args.factor;
      const doubles centre = load_doubles(args.centre + j + at);
      if constexpr (!kKeep) store_narrowed(fresh + at, (mean + centre) * args.unscale);
      const doubles stored = load_doubles((kKeep ? centroid : fresh) + at) * args.scale;
      const doubles off = (stored - centre) - mean;
      norms[v] = norms[v] + mean * mean;
      offs[v] = offs[v] + off * off;
      if constexpr (!kKeep) {
        const doubles shift = stored - load_doubles(centroid + at) * args.scale;
        shifts[v] = shifts[v] + shift * shift;
      }
    }
    if constexpr (!kKeep) {
      moved = moved || std::memcmp(fresh, centroid, sizeof(fresh)) != 0;
      std::memcpy(centroid, fresh, sizeof(fresh));
    }
  }
  alignas(64) double norm_lanes[16], off_lanes[16], shift_lanes[16];
  for (int v = 0; v < kRegistersOf16; ++v) {
    store(norm_lanes + kDoubles * v, norms[v]);
    store(off_lanes + kDoubles * v, offs[v]);
    store(shift_lanes + kDoubles * v, shifts[v]);
  }
  for (; j < args.n; ++j) {
    T& centroid = args.centroid[j];
    const double mean = static_cast<double>(args.sum[j]) / args.total * args.factor;
    const auto centre = static_cast<double>(args.centre[j]);
    const T now = kKeep ? centroid : static_cast<T>((mean + centre) * args.unscale);
    const double stored = static_cast<double>(now) * args.scale;
    const double off = (stored - centre) - mean;
    const double shift = stored - static_cast<double>(centroid) * args.scale;
    norm_lanes[j % 16] += mean * mean;
    off_lanes[j % 16] += off * off;
    shift_lanes[j % 16] += shift * shift;
    moved = moved || std::memcmp(&now, &centroid, sizeof(T)) != 0;
    centroid = now;
  }
  args.sq_norm = add_16_lanes(norm_lanes);
  args.sq_off = add_16_lanes(off_lanes);
  args.sq_shift = add_16_lanes(shift_lanes);
  args.moved = moved;
}

template <class T>
void finish(FinishArgs<T>& args) noexcept {
  args.keep ? finish_sum<true>(args) : finish_sum<false>(args);
}

}  // namespace
