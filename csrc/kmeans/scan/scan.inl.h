// SPDX-License-Identifier: Apache-2.0
// The body of scan. Internal linkage only.
#pragma once

#include "core/simd/vector.h"
#include "kmeans/scan/scan.h"

namespace {

using namespace ddkern::simd;
using ddkern::kmeans::kBlockPoints;
using ddkern::kmeans::kHalfBlock;
using ddkern::kmeans::ScanArgs;
using ddkern::kmeans::ScanResult;

// The three least s - E of each lane so far, with the columns of the first two.
struct Places {
  floats least, second, third, upper;
  int32s winner, runner_up;
};

// Whoever loses a place tries for the next one.
inline void insert(Places& places, const floats& score, const floats& bound, std::int32_t k) {
  const floats low = score - bound;
  places.upper = lesser(score + bound, places.upper);
  const int32s column = int32s{} + k;
  const auto first_place = low < places.least;
  const floats loser = first_place ? places.least : low;
  const int32s losing_column = first_place ? places.winner : column;
  places.least = first_place ? low : places.least;
  places.winner = first_place ? column : places.winner;
  const auto second_place = loser < places.second;
  const floats last = second_place ? places.second : loser;
  places.second = second_place ? loser : places.second;
  places.runner_up = second_place ? losing_column : places.runner_up;
  places.third = lesser(last, places.third);
}

inline floats score_of(const ScanArgs& args, int first, std::int64_t k) {
  return load<floats>(args.products + k * kBlockPoints + first) + args.base[k];
}

// The columns of half a block: a list, or all, which need no look-up.
template <bool kListed>
struct Columns {
  const std::int32_t* list;
  std::int64_t n;
  std::int32_t operator[](std::int64_t i) const {
    return kListed ? list[i] : static_cast<std::int32_t>(i);
  }
};

// Several minima at a time, for each waits for the one before.
template <bool kListed>
inline floats least_score(const ScanArgs& args, int first, const Columns<kListed>& columns) {
  constexpr int kMinima = 4;
  floats minima[kMinima];
  for (floats& m : minima) m = floats{} + __builtin_inff();
  std::int64_t i = 0;
  for (; i + kMinima <= columns.n; i += kMinima) {
    for (int m = 0; m < kMinima; ++m) {
      minima[m] = lesser(score_of(args, first, columns[i + m]), minima[m]);
    }
  }
  for (; i < columns.n; ++i) minima[0] = lesser(score_of(args, first, columns[i]), minima[0]);
  return lesser(lesser(minima[0], minima[1]), lesser(minima[2], minima[3]));
}

// Most columns are far from winning: a first pass finds the least score, and only columns within
// what the largest bounds can bridge compete for places. For the points of one register.
template <bool kListed>
inline void scan_part(const ScanArgs& args, int first, const Columns<kListed>& columns,
                      ScanResult& result) {
  constexpr int kAtOnce = 64;
  const floats infinity = floats{} + __builtin_inff();
  const floats p = load<floats>(args.p + first), q = load<floats>(args.q + first);
  // A column that may win is at most two bounds above the least. The third is for roundings: a
  // bound is larger than eight times those of a score.
  const floats limit =
      least_score(args, first, columns) + 3.0f * (p * args.most_u + q * args.most_v + args.most_e);
  Places places{infinity, infinity, infinity, infinity, {}, {}};
  for (std::int64_t begin = 0; begin < columns.n; begin += kAtOnce) {
    const std::int64_t end = begin + kAtOnce < columns.n ? begin + kAtOnce : columns.n;
    // One bit each, without branches, which nobody could predict; from the last to the first, so
    // that a new bit is one addition away.
    std::uint64_t competing = 0;
    for (std::int64_t i = end - 1; i >= begin; --i) {
      const bool competes = any_up_to(score_of(args, first, columns[i]), limit);
      competing = competing + competing + static_cast<std::uint64_t>(competes);
    }
    for (; competing != 0; competing &= competing - 1) {
      const std::int32_t k = columns[begin + __builtin_ctzll(competing)];
      const floats bound = p * args.u[k] + q * args.v[k] + args.e[k];
      insert(places, score_of(args, first, k), bound, k);
    }
  }
  store(result.winner + first, places.winner);
  store(result.runner_up + first, places.runner_up);
  store(result.upper + first, places.upper);
  result.certain |= lanes_above(places.second, places.upper) << first;
  result.two |= lanes_above(places.third, places.upper) << first;
}

void scan(const ScanArgs& args, ScanResult& result) noexcept {
  result.certain = result.two = 0;
  for (int first = 0; first < kBlockPoints; first += kFloats) {
    const int half = first / kHalfBlock;
    const std::int32_t* list = args.columns[half];
    const std::int64_t n = args.n_columns[half];
    if (list != nullptr) {
      scan_part<true>(args, first, {list, n}, result);
    } else {
      scan_part<false>(args, first, {list, n}, result);
    }
  }
}

}  // namespace
