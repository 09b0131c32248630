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
  i64x8 sum{};
  for (int p = 0; p < kBlockPoints; p += 8) {
    const f64x8 closest = load<f64x8>(args.closest + p);
    f64x8 d = (load_f64x8(args.norms + p) - 2.0 * load_f64x8(args.dots + p)) + args.candidate_norm;
    d = d > 0.0 ? d : f64x8{};
    d = d < closest ? d : closest;
    store(args.nearer + p, d);
    if (args.weights == nullptr) {
      sum += round_f64x8(d * args.unit);
    } else {
      const f64x8 value = (d * args.unit + kRound) - kRound;
      sum += round_wide_f64x8(value * load<f64x8>(args.weights + p));
    }
  }
  std::int64_t total = 0;
  for (int l = 0; l < 8; ++l) total += sum[l];
  return total;
}

std::uint32_t screen(const ScreenArgs& args) noexcept {
  std::uint32_t open = 0;
  for (int i = 0; i < kBlockPoints; i += 8) {
    const f64x8 sq_norm = load<f64x8>(args.sq_norms + i);
    const f64x8 score = load_f64x8(args.products + i) + static_cast<double>(args.base);
    const f64x8 bound = load_f64x8(args.p + i) * static_cast<double>(args.u) +
                        load_f64x8(args.q + i) * static_cast<double>(args.v) +
                        static_cast<double>(args.e) + sq_norm * args.sq_norm_error;
    const f64x8 norms = load<f64x8>(args.norms + i) + args.candidate_norm;
    const f64x8 error = bound * args.unit + norms * norms * args.chain_error;
    const f64x8 distance = (sq_norm + score) * args.unit;
    const f64x8 difference = distance - error;
    // A distance is not negative, and neither is what nobody knows (NaN).
    const f64x8 lower = difference > 0.0 ? difference : f64x8{};
    store(args.lower + i, lower);
    store(args.upper + i, distance + error);
    const i64x8 decided = lower >= load<f64x8>(args.closest + i);
    for (int l = 0; l < 8; ++l) {
      open |= static_cast<std::uint32_t>(decided[l] == 0) << (i + l);
    }
  }
  return open;
}

}  // namespace
