// SPDX-License-Identifier: Apache-2.0
// segment_mean: means of the rows of each class; some of the features.
//
//   means[c, j] = sum over rows i of class c of values[i, j], over the number of those rows
//
// Numerics. Values are float32, sums float64: the rows of a class are added in their order, which
// is one chain for each class and feature, and the sum is divided once. So the relative error of a
// mean of values of one sign is below n_c * 2^-53, and the bits are the same at every level and for
// any division into features. NaN and infinities spread as in the formula.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace ddkern::matching {

struct SegmentBlock {
  std::int64_t n_rows;
  std::int64_t n_features;  // from one row to the next, in values and means
  std::int64_t n_classes;
  std::int64_t begin;          // the features [begin, end) are this block's
  std::int64_t end;            //
  const float* values;         // [n_rows, n_features]
  const std::int64_t* labels;  // [n_rows], each in [0, n_classes)
  const std::int64_t* counts;  // [n_classes], none 0
  double* means;               // out [n_classes, n_features]
};

struct SegmentMeanOps {
  void (*means)(const SegmentBlock& block) noexcept;
};

extern const SegmentMeanOps segment_mean_base;
extern const SegmentMeanOps segment_mean_avx2;
extern const SegmentMeanOps segment_mean_avx512;

const SegmentMeanOps& segment_mean_ops(Isa isa);

}  // namespace ddkern::matching
