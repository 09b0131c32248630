// SPDX-License-Identifier: Apache-2.0
// The body of scan. Internal linkage only.
#pragma once

#include "core/simd/vector.h"
#include "kmeans/scan/scan.h"

namespace {

using namespace ddkern::simd;
using ddkern::kmeans::kBlockPoints;
using ddkern::kmeans::ScanArgs;

constexpr int kParts = kBlockPoints / 16;

std::uint32_t scan(const ScanArgs& args) noexcept {
  const f32x16 infinity = f32x16{} + __builtin_inff();
  f32x16 p[kParts], q[kParts], least[kParts], second[kParts], upper[kParts];
  i32x16 winner[kParts];
  for (int part = 0; part < kParts; ++part) {
    p[part] = load<f32x16>(args.p + 16 * part);
    q[part] = load<f32x16>(args.q + 16 * part);
    least[part] = second[part] = upper[part] = infinity;
    winner[part] = i32x16{};
  }
  for (std::int64_t k = 0; k < args.n_columns; ++k) {
    const f32x16 u = f32x16{} + args.u[k], v = f32x16{} + args.v[k], e = f32x16{} + args.e[k];
    const i32x16 column = i32x16{} + static_cast<std::int32_t>(k);
    for (int part = 0; part < kParts; ++part) {
      const f32x16 score = load<f32x16>(args.scores + k * kBlockPoints + 16 * part);
      const f32x16 bound = p[part] * u + q[part] * v + e;
      const f32x16 low = score - bound, high = score + bound;
      const i32x16 better = low < least[part];
      const f32x16 loser = better ? least[part] : low;
      least[part] = better ? low : least[part];
      winner[part] = better ? column : winner[part];
      second[part] = loser < second[part] ? loser : second[part];
      upper[part] = high < upper[part] ? high : upper[part];
    }
  }
  std::uint32_t certain = 0;
  for (int part = 0; part < kParts; ++part) {
    store(args.winner + 16 * part, winner[part]);
    store(args.upper + 16 * part, upper[part]);
    const i32x16 apart = second[part] > upper[part];
    for (int l = 0; l < 16; ++l) {
      certain |= static_cast<std::uint32_t>(apart[l] & 1) << (16 * part + l);
    }
  }
  return certain;
}

}  // namespace
