// SPDX-License-Identifier: Apache-2.0
// trajectory: how far a student is from a target, and how far it was at the start; one block.
//
//   to_target = sum (student - target)^2,   of_start = sum (start - target)^2
//   absolute = sum |student - target|
//   difference: out = factor * (a - b), the derivative of such a sum
//
// Numerics. Values are float32 or bfloat16. Differences, their squares or magnitudes, and sums are
// float64: value i goes to chain i mod 32, the chains of a block are added pairwise (0 + 16,
// 1 + 17, ...; 0 + 8, ...), and nothing is fused, so the relative error is below (n / 32 + 8) *
// 2^-53, and the bits are the same at every level. `difference` is float32, each of its two
// operations rounded, and for bfloat16 the result once more. NaN and infinities spread as in the
// formulas.
#pragma once

#include <cstdint>

#include "core/bfloat16.h"
#include "core/isa.h"

namespace ddkern::matching {

// Part of the definition of the sums: others would round otherwise.
constexpr int kTrajectoryChains = 32;
constexpr std::int64_t kTrajectoryBlock = 16 * 1024;  // values, of one tensor

template <class T>
struct TrajectoryBlock {
  std::int64_t n;
  const T* student;  // [n]
  const T* target;   // [n]
  const T* start;    // [n], or null
};

template <class T>
struct DifferenceBlock {
  std::int64_t n;
  const T* a;  // [n]
  const T* b;  // [n]
  T* out;      // out [n]
};

template <class T>
struct TrajectoryOps {
  // of_start is 0 without a start.
  void (*sums)(const TrajectoryBlock<T>& block, double& to_target, double& of_start) noexcept;
  double (*absolute)(const TrajectoryBlock<T>& block) noexcept;  // without a start
  void (*difference)(const DifferenceBlock<T>& block, float factor) noexcept;
};

struct TrajectoryTable {
  TrajectoryOps<float> f32;
  TrajectoryOps<Bfloat16> bf16;
};

extern const TrajectoryTable trajectory_base;
extern const TrajectoryTable trajectory_avx2;
extern const TrajectoryTable trajectory_avx512;

// T is float or Bfloat16.
template <class T>
const TrajectoryOps<T>& trajectory_ops(Isa isa);

}  // namespace ddkern::matching
