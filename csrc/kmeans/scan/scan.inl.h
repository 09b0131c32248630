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

constexpr int kParts = kBlockPoints / 16;

inline std::uint32_t lanes_of(const i32x16& mask) {
  std::uint32_t bits = 0;
  for (int l = 0; l < 16; ++l) bits |= static_cast<std::uint32_t>(mask[l] & 1) << l;
  return bits;
}

void scan(const ScanArgs& args, ScanResult& result) noexcept {
  const f32x16 infinity = f32x16{} + __builtin_inff();
  // One half of the block at a time: the state of one half fits the registers.
  result.certain = result.two = 0;
  for (int part = 0; part < kParts; ++part) {
    const f32x16 p = load<f32x16>(args.p + 16 * part), q = load<f32x16>(args.q + 16 * part);
    f32x16 least = infinity, second = infinity, third = infinity, upper = infinity;
    i32x16 winner{}, runner_up{};
    const float* products = args.products + 16 * part;
    for (std::int64_t k = 0; k < args.n_columns; ++k, products += kBlockPoints) {
      const f32x16 score = load<f32x16>(products) + args.base[k];
      const f32x16 bound = p * args.u[k] + q * args.v[k] + args.e[k];
      const f32x16 low = score - bound, high = score + bound;
      upper = high < upper ? high : upper;
      const i32x16 column = i32x16{} + static_cast<std::int32_t>(k);
      // Insert low into the three least: whoever loses a place tries for the next one.
      const i32x16 first_place = low < least;
      const f32x16 loser = first_place ? least : low;
      const i32x16 losing_column = first_place ? winner : column;
      least = first_place ? low : least;
      winner = first_place ? column : winner;
      const i32x16 second_place = loser < second;
      const f32x16 last = second_place ? second : loser;
      second = second_place ? loser : second;
      runner_up = second_place ? losing_column : runner_up;
      third = last < third ? last : third;
    }
    store(result.winner + 16 * part, winner);
    store(result.runner_up + 16 * part, runner_up);
    store(result.upper + 16 * part, upper);
    result.certain |= lanes_of(second > upper) << (16 * part);
    result.two |= lanes_of(third > upper) << (16 * part);
  }
}

}  // namespace
