// SPDX-License-Identifier: Apache-2.0
// The body of scan. Internal linkage only.
#pragma once

#include "core/simd/vector.h"
#include "kmeans/scan/scan.h"

namespace {

using namespace ddkern::simd;
using ddkern::kmeans::kBlockPoints;
using ddkern::kmeans::ScanArgs;
using ddkern::kmeans::ScanResult;

inline std::uint32_t lanes_of(const int32s& mask) {
  std::uint32_t bits = 0;
  for (int l = 0; l < kFloats; ++l) bits |= static_cast<std::uint32_t>(mask[l] & 1) << l;
  return bits;
}

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

// Several minima at a time, for each waits for the one before.
inline floats least_score(const ScanArgs& args, int first) {
  constexpr int kMinima = 4;
  floats minima[kMinima];
  for (floats& m : minima) m = floats{} + __builtin_inff();
  std::int64_t k = 0;
  for (; k + kMinima <= args.n_columns; k += kMinima) {
    for (int m = 0; m < kMinima; ++m) {
      minima[m] = lesser(score_of(args, first, k + m), minima[m]);
    }
  }
  for (; k < args.n_columns; ++k) minima[0] = lesser(score_of(args, first, k), minima[0]);
  return lesser(lesser(minima[0], minima[1]), lesser(minima[2], minima[3]));
}

// Most columns are far from winning: a first pass finds the least score, and only columns within
// what the largest bounds can bridge compete for places.
void scan(const ScanArgs& args, ScanResult& result) noexcept {
  constexpr int kAtOnce = 64;
  const floats infinity = floats{} + __builtin_inff();
  // A part of the block at a time, whose state fits the registers.
  result.certain = result.two = 0;
  for (int first = 0; first < kBlockPoints; first += kFloats) {
    const floats p = load<floats>(args.p + first), q = load<floats>(args.q + first);
    // A column that may win is at most two bounds above the least. The third is for roundings:
    // a bound is larger than eight times those of a score.
    const floats limit =
        least_score(args, first) + 3.0f * (p * args.most_u + q * args.most_v + args.most_e);
    Places places{infinity, infinity, infinity, infinity, {}, {}};
    for (std::int64_t begin = 0; begin < args.n_columns; begin += kAtOnce) {
      const std::int64_t end = begin + kAtOnce < args.n_columns ? begin + kAtOnce : args.n_columns;
      // Listed without branches, which nobody could predict.
      std::int32_t listed[kAtOnce];
      int n_listed = 0;
      for (std::int64_t k = begin; k < end; ++k) {
        listed[n_listed] = static_cast<std::int32_t>(k);
        n_listed += any_up_to(score_of(args, first, k), limit);
      }
      for (int i = 0; i < n_listed; ++i) {
        const std::int32_t k = listed[i];
        const floats bound = p * args.u[k] + q * args.v[k] + args.e[k];
        insert(places, score_of(args, first, k), bound, k);
      }
    }
    store(result.winner + first, places.winner);
    store(result.runner_up + first, places.runner_up);
    store(result.upper + first, places.upper);
    result.certain |= lanes_of(places.second > places.upper) << first;
    result.two |= lanes_of(places.third > places.upper) << first;
  }
}

}  // namespace
