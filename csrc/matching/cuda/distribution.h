// SPDX-License-Identifier: Apache-2.0
// Losses between sets of features on a GPU: matching/segment_mean/segment_mean.h and
// matching/mmd/mmd.h are the contracts, matching/distribution.h says what becomes of whole sets,
// and the bits are those of the CPU. As in matching/cuda/trajectory.h, nothing waits and nothing is
// allocated.
#pragma once

#include <cstdint>

#include "matching/cuda/trajectory.h"
#include "matching/distribution.h"

namespace ddkern::matching::cuda {

struct SegmentRows {
  std::int64_t n_rows;
  std::int64_t n_features;
  std::int64_t n_classes;
  const float* values;         // [n_rows, n_features]
  const std::int64_t* labels;  // [n_rows]
};

// Doubles of workspace that segment_means() takes.
std::int64_t segment_workspace(std::int64_t n_rows, std::int64_t n_classes);

// Nobody has looked at the labels: what is no class makes all means NaN, and a class without rows
// its own.
void segment_means(const SegmentRows& rows, double* workspace, double* means,
                   const DeviceCall& call);  // means: out [n_classes, n_features]

// Numbers that travel with a launch, or as many as the device has.
inline constexpr int kMostRates = 32;
struct Rates {
  int n;
  const double* at;          // [n] on the device, or null, and then
  double value[kMostRates];  // n of them
};

// Doubles of workspace that mmd_means() and mmd_pull() take for sets of n and m points.
std::int64_t mmd_workspace(std::int64_t n, std::int64_t m);
std::int64_t pull_workspace(std::int64_t n, std::int64_t m);

// means: out [3], of x and x, x and y, y and y.
void mmd_means(const PointSet& x, const PointSet& y, std::int64_t n_features, const Rates& rates,
               double* workspace, double* means, const DeviceCall& call);

// own [1] and cross [1] are on the device. The weights of some points of x at a time are in the
// workspace, never those of all, but where they are few.
void mmd_pull(const PointSet& x, const PointSet& y, std::int64_t n_features, const Rates& rates,
              const double* own, const double* cross, double* workspace, float* out,
              const DeviceCall& call);  // out [x.n, n_features]

}  // namespace ddkern::matching::cuda
