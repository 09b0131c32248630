// SPDX-License-Identifier: Apache-2.0
// The body of segment_mean. Internal linkage only.
#pragma once

#include "core/simd/vector.h"
#include "matching/segment_mean/segment_mean.h"

namespace {

using namespace ddkern::simd;
using ddkern::matching::SegmentBlock;

void means(const SegmentBlock& block) noexcept {
  const std::int64_t n_features = block.n_features, begin = block.begin, end = block.end;
  for (std::int64_t c = 0; c < block.n_classes; ++c) {
    for (std::int64_t j = begin; j < end; ++j) block.means[c * n_features + j] = 0;
  }
  for (std::int64_t i = 0; i < block.n_rows; ++i) {
    const float* row = block.values + i * n_features;
    double* sum = block.means + block.labels[i] * n_features;
    std::int64_t j = begin;
    for (; j + kDoubles <= end; j += kDoubles) {
      store(sum + j, load<doubles>(sum + j) + load_doubles(row + j));
    }
    for (; j < end; ++j) sum[j] += static_cast<double>(row[j]);
  }
  for (std::int64_t c = 0; c < block.n_classes; ++c) {
    const double count = static_cast<double>(block.counts[c]);
    for (std::int64_t j = begin; j < end; ++j) block.means[c * n_features + j] /= count;
  }
}

}  // namespace
