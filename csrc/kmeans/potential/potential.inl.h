// SPDX-License-Identifier: Apache-2.0
// The body of potential. Internal linkage only.
#pragma once

#include "core/simd/round.h"
#include "kmeans/potential/potential.h"

namespace {

using namespace ddkern::simd;
using ddkern::kmeans::kBlockPoints;
using ddkern::kmeans::PotentialArgs;
using ddkern::kmeans::ScreenArgs;

std::int64_t potential(const PotentialArgs& args) noexcept {
  int64s sum{};
  for (int p = 0; p < kBlockPoints; p += kDoubles) {
    const doubles distance =
        (load_doubles(args.norms + p) - 2.0 * load_doubles(args.dots + p)) + args.candidate_norm;
    const doubles nearer = lesser(greater(distance, doubles{}), load<doubles>(args.closest + p));
    store(args.nearer + p, nearer);
    if (args.weights == nullptr) {
      sum += round_doubles(nearer * args.unit);
    } else {
      const doubles value = (nearer * args.unit + kRound) - kRound;
      sum += round_wide_doubles(value * load<doubles>(args.weights + p));
    }
  }
  std::int64_t total = 0;
  for (int l = 0; l < kDoubles; ++l) total += sum[l];
  return total;
}

std::uint32_t screen(const ScreenArgs& args) noexcept {
  std::uint32_t open = 0;
  for (int i = 0; i < kBlockPoints; i += kDoubles) {
    const doubles sq_norm = load<doubles>(args.sq_norms + i);
    const doubles score = load_doubles(args.products + i) + static_cast<double>(args.base);
    const doubles bound = load_doubles(args.p + i) * static_cast<double>(args.u) +
                          load_doubles(args.q + i) * static_cast<double>(args.v) +
                          static_cast<double>(args.e) + sq_norm * args.sq_norm_error;
    const doubles norms = load<doubles>(args.norms + i) + args.candidate_norm;
    const doubles error =
        bound * args.unit + norms * norms * args.chain_error + args.chain_underflow;
    const doubles distance = (sq_norm + score) * args.unit;
    // A distance is not negative, and neither is what nobody knows (NaN).
    const doubles lower = greater(distance - error, doubles{});
    store(args.lower + i, lower);
    store(args.upper + i, distance + error);
    const auto decided = lower >= load<doubles>(args.closest + i);
    for (int l = 0; l < kDoubles; ++l) {
      open |= static_cast<std::uint32_t>(decided[l] == 0) << (i + l);
    }
  }
  return open;
}

}  // namespace
