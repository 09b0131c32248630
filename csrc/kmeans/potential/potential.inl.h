// SPDX-License-Identifier: Apache-2.0
// The body of potential. Internal linkage only.
#pragma once

#include "core/simd/round.h"
#include "kmeans/potential/potential.h"

namespace {

using namespace ddkern::simd;
using ddkern::kmeans::kBlockPoints;
using ddkern::kmeans::PotentialArgs;

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

}  // namespace
