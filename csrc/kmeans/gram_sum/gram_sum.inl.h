// SPDX-License-Identifier: Apache-2.0
// The body of gram_sum. Internal linkage only.
#pragma once

#include "core/simd/vector.h"
#include "kmeans/gram_sum/gram_sum.h"

namespace {

using namespace ddkern::simd;
using ddkern::kmeans::GramSumArgs;
using ddkern::kmeans::kBlockPoints;

// Sums in registers while some rows go by, no more than the first caches follow.
constexpr int kSums = kBlockPoints / kDoubles < 8 ? kBlockPoints / kDoubles : 8;
constexpr std::int64_t kRowsAtOnce = 32;

void add(const GramSumArgs& args) noexcept {
  for (std::int64_t begin = 0; begin < args.n_rows; begin += kRowsAtOnce) {
    const std::int64_t end = begin + kRowsAtOnce < args.n_rows ? begin + kRowsAtOnce : args.n_rows;
    for (std::int64_t b = 0; b < args.n_blocks; ++b) {
      for (int first = 0; first < kBlockPoints; first += kSums * kDoubles) {
        double* to = args.sums + b * args.stride + first;
        const std::int64_t at = b * kBlockPoints + first;
        doubles sums[kSums] = {};
        if (begin > 0 || !args.fresh) {
          for (int v = 0; v < kSums; ++v) sums[v] = load<doubles>(to + kDoubles * v);
        }
        for (std::int64_t r = begin; r < end; ++r) {
          const float* entries = args.rows[r] + at;
          const double weight = args.weights[r];
          for (int v = 0; v < kSums; ++v) sums[v] += load_doubles(entries + kDoubles * v) * weight;
        }
        for (int v = 0; v < kSums; ++v) store(to + kDoubles * v, sums[v]);
      }
    }
  }
}

void products(const double* sums, double factor, float* out) noexcept {
  for (int p = 0; p < kBlockPoints; p += kDoubles) {
    store(out + p, narrow(load<doubles>(sums + p) * factor));
  }
}

}  // namespace
