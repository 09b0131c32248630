// SPDX-License-Identifier: Apache-2.0
// Losses between sets of features: means of classes, and the maximum mean discrepancy.
//
// The arithmetic is that of the ops, one folder each. Here features, or panels of points, are
// handed to threads; what they sum is added in the order of panels: the same bits for any number of
// threads.
#pragma once

#include <cstdint>

#include "matching/mmd/mmd.h"
#include "matching/segment_mean/segment_mean.h"

namespace ddkern::matching {

struct SegmentCall {
  std::int64_t n_rows;
  std::int64_t n_features;
  std::int64_t n_classes;
  const float* values;         // [n_rows, n_features]
  const std::int64_t* labels;  // [n_rows], each in [0, n_classes)
  const std::int64_t* counts;  // [n_classes], none 0
  double* means;               // out [n_classes, n_features]
};

// At most n_threads threads, here and below; fewer where there is little to do.
void segment_means(const SegmentCall& call, int n_threads);

struct PointSet {
  std::int64_t n;
  const float* rows;  // [n, n_features]
};

// Means of the kernel over all pairs of points, each with itself included.
struct MmdMeans {
  double xx;
  double xy;
  double yy;
};

// Takes eight bytes for each value of both sets, here and below: their panels.
MmdMeans mmd_means(const PointSet& x, const PointSet& y, const MmdKernel& kernel, int n_threads);

// out[i] = own * sum over j of W(x_i, x_j) (x_i - x_j) + cross * sum over j of
// W(x_i, y_j) (x_i - y_j), in that order, rounded to float32 once. W is that of mmd/mmd.h.
void mmd_pull(const PointSet& x, const PointSet& y, const MmdKernel& kernel, double own,
              double cross, float* out, int n_threads);  // out [x.n, n_features]

}  // namespace ddkern::matching
