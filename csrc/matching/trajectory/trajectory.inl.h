// SPDX-License-Identifier: Apache-2.0
// The body of trajectory. Internal linkage only.
#pragma once

#include "core/simd/chains.h"
#include "matching/trajectory/trajectory.h"

namespace {

using namespace ddkern::simd;
using ddkern::Bfloat16;
using ddkern::matching::DifferenceBlock;
using ddkern::matching::TrajectoryBlock;

static_assert(kChains == ddkern::matching::kTrajectoryChains, "part of the definition of sums");

inline void add_squares(const doubles (&a)[kChainRegisters], const doubles (&b)[kChainRegisters],
                        doubles (&sum)[kChainRegisters]) {
  for (int r = 0; r < kChainRegisters; ++r) {
    const doubles d = a[r] - b[r];
    sum[r] += d * d;
  }
}

template <class T, bool kWithStart>
inline void sums_of(const TrajectoryBlock<T>& block, double& to_target, double& of_start) {
  doubles to[kChainRegisters] = {}, of[kChainRegisters] = {}, x[kChainRegisters],
          target[kChainRegisters];
  std::int64_t i = 0;
  for (; i + kChains <= block.n; i += kChains) {
    widen_chains(block.target + i, target);
    widen_chains(block.student + i, x);
    add_squares(x, target, to);
    if constexpr (kWithStart) {
      widen_chains(block.start + i, x);
      add_squares(x, target, of);
    }
  }
  if (i < block.n) {
    // What lies beyond the end is 0 in all of them, and adds 0.
    const auto bytes = static_cast<std::size_t>(block.n - i) * sizeof(T);
    T end[kChains] = {}, end_target[kChains] = {};
    std::memcpy(end_target, block.target + i, bytes);
    widen_chains(end_target, target);
    std::memcpy(end, block.student + i, bytes);
    widen_chains(end, x);
    add_squares(x, target, to);
    if constexpr (kWithStart) {
      std::memcpy(end, block.start + i, bytes);
      widen_chains(end, x);
      add_squares(x, target, of);
    }
  }
  to_target = sum_chains<T>(to);
  of_start = kWithStart ? sum_chains<T>(of) : 0;
}

template <class T>
void sums(const TrajectoryBlock<T>& block, double& to_target, double& of_start) noexcept {
  if (block.start == nullptr) {
    sums_of<T, false>(block, to_target, of_start);
  } else {
    sums_of<T, true>(block, to_target, of_start);
  }
}

template <class T>
inline void add_magnitudes(const T* student, const T* target, doubles (&sum)[kChainRegisters]) {
  doubles x[kChainRegisters], y[kChainRegisters];
  widen_chains(student, x);
  widen_chains(target, y);
  for (int r = 0; r < kChainRegisters; ++r) {
    const doubles d = x[r] - y[r];
    sum[r] += d < 0 ? -d : d;
  }
}

template <class T>
double absolute(const TrajectoryBlock<T>& block) noexcept {
  doubles sum[kChainRegisters] = {};
  std::int64_t i = 0;
  for (; i + kChains <= block.n; i += kChains) {
    add_magnitudes(block.student + i, block.target + i, sum);
  }
  if (i < block.n) {
    const auto bytes = static_cast<std::size_t>(block.n - i) * sizeof(T);
    T student[kChains] = {}, target[kChains] = {};
    std::memcpy(student, block.student + i, bytes);
    std::memcpy(target, block.target + i, bytes);
    add_magnitudes(student, target, sum);
  }
  return sum_chains<T>(sum);
}

inline void scale(const float* a, const float* b, float factor, float* out) {
  store(out, factor * (load<floats>(a) - load<floats>(b)));
}
inline void scale(const Bfloat16* a, const Bfloat16* b, float factor, Bfloat16* out) {
  floats a_even, a_odd, b_even, b_odd;
  widen_bfloat16(a, a_even, a_odd);
  widen_bfloat16(b, b_even, b_odd);
  narrow_to_bfloat16(factor * (a_even - b_even), factor * (a_odd - b_odd), out);
}

template <class T>
void difference(const DifferenceBlock<T>& block, float factor) noexcept {
  constexpr int kStep = kRegisterBytes / static_cast<int>(sizeof(T));
  std::int64_t i = 0;
  for (; i + kStep <= block.n; i += kStep) {
    scale(block.a + i, block.b + i, factor, block.out + i);
  }
  if (i < block.n) {
    const auto bytes = static_cast<std::size_t>(block.n - i) * sizeof(T);
    T a[kStep] = {}, b[kStep] = {}, out[kStep];
    std::memcpy(a, block.a + i, bytes);
    std::memcpy(b, block.b + i, bytes);
    scale(a, b, factor, out);
    std::memcpy(block.out + i, out, bytes);
  }
}

}  // namespace
