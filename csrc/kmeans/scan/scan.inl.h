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

void scan(const ScanArgs& args, ScanResult& result) noexcept {
  const floats infinity = floats{} + __builtin_inff();
  // A part of the block at a time, whose state fits the registers.
  result.certain = result.two = 0;
  for (int first = 0; first < kBlockPoints; first += kFloats) {
    const floats p = load<floats>(args.p + first), q = load<floats>(args.q + first);
    floats least = infinity, second = infinity, third = infinity, upper = infinity;
    int32s winner{}, runner_up{};
    const float* products = args.products + first;
    for (std::int64_t k = 0; k < args.n_columns; ++k, products += kBlockPoints) {
      const floats score = load<floats>(products) + args.base[k];
      const floats bound = p * args.u[k] + q * args.v[k] + args.e[k];
      const floats low = score - bound;
      upper = lesser(score + bound, upper);
      const int32s column = int32s{} + static_cast<std::int32_t>(k);
      // Insert low into the three least: whoever loses a place tries for the next one.
      const auto first_place = low < least;
      const floats loser = first_place ? least : low;
      const int32s losing_column = first_place ? winner : column;
      least = first_place ? low : least;
      winner = first_place ? column : winner;
      const auto second_place = loser < second;
      const floats last = second_place ? second : loser;
      second = second_place ? loser : second;
      runner_up = second_place ? losing_column : runner_up;
      third = lesser(last, third);
    }
    store(result.winner + first, winner);
    store(result.runner_up + first, runner_up);
    store(result.upper + first, upper);
    result.certain |= lanes_of(second > upper) << first;
    result.two |= lanes_of(third > upper) << first;
  }
}

}  // namespace
