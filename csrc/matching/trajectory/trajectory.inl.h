// SPDX-License-Identifier: Apache-2.0
// The body of trajectory. Internal linkage only.
#pragma once

#include "core/simd/bfloat16.h"
#include "matching/trajectory/trajectory.h"

namespace {

using namespace ddkern::simd;
using ddkern::Bfloat16;
using ddkern::matching::DifferenceBlock;
using ddkern::matching::TrajectoryBlock;

// Values that are taken at a time, one for each chain; the registers of every level divide it.
constexpr int kChains = ddkern::matching::kTrajectoryChains;
constexpr int kRegisters = kChains / kDoubles;

inline half_floats half(const floats& v, int which) {
  half_floats found;
  std::memcpy(&found, reinterpret_cast<const char*>(&v) + which * sizeof(found), sizeof(found));
  return found;
}

// 32 values to doubles, and which of them lane l of register r holds.
inline void widen_all(const float* from, doubles (&v)[kRegisters]) {
  for (int r = 0; r < kRegisters; ++r) v[r] = widen(load<half_floats>(from + r * kDoubles));
}
inline void widen_all(const Bfloat16* from, doubles (&v)[kRegisters]) {
  for (int r = 0; r < kRegisters; r += 4) {
    floats even, odd;
    widen_bfloat16(from + r * kDoubles, even, odd);
    v[r] = widen(half(even, 0));
    v[r + 1] = widen(half(even, 1));
    v[r + 2] = widen(half(odd, 0));
    v[r + 3] = widen(half(odd, 1));
  }
}
template <class T>
constexpr int place_of(int r, int lane) {
  if (sizeof(T) == sizeof(float)) return r * kDoubles + lane;
  const int group = r / 4 * 4 * kDoubles, half = r % 2 * kDoubles, odd = r % 4 / 2;
  return group + 2 * (half + lane) + odd;
}

// The sum of the chains, pairwise.
template <class T>
inline double sum_chains(const doubles (&v)[kRegisters]) {
  double chain[kChains];
  for (int r = 0; r < kRegisters; ++r) {
    for (int l = 0; l < kDoubles; ++l) chain[place_of<T>(r, l)] = v[r][l];
  }
  for (int half = kChains / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) chain[i] += chain[i + half];
  }
  return chain[0];
}

inline void add_squares(const doubles (&a)[kRegisters], const doubles (&b)[kRegisters],
                        doubles (&sum)[kRegisters]) {
  for (int r = 0; r < kRegisters; ++r) {
    const doubles d = a[r] - b[r];
    sum[r] += d * d;
  }
}

template <class T, bool kWithStart>
inline void sums_of(const TrajectoryBlock<T>& block, double& to_target, double& of_start) {
  doubles to[kRegisters] = {}, of[kRegisters] = {}, x[kRegisters], target[kRegisters];
  std::int64_t i = 0;
  for (; i + kChains <= block.n; i += kChains) {
    widen_all(block.target + i, target);
    widen_all(block.student + i, x);
    add_squares(x, target, to);
    if constexpr (kWithStart) {
      widen_all(block.start + i, x);
      add_squares(x, target, of);
    }
  }
  if (i < block.n) {
    // What lies beyond the end is 0 in all of them, and adds 0.
    const auto bytes = static_cast<std::size_t>(block.n - i) * sizeof(T);
    T end[kChains] = {}, end_target[kChains] = {};
    std::memcpy(end_target, block.target + i, bytes);
    widen_all(end_target, target);
    std::memcpy(end, block.student + i, bytes);
    widen_all(end, x);
    add_squares(x, target, to);
    if constexpr (kWithStart) {
      std::memcpy(end, block.start + i, bytes);
      widen_all(end, x);
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
inline void add_magnitudes(const T* student, const T* target, doubles (&sum)[kRegisters]) {
  doubles x[kRegisters], y[kRegisters];
  widen_all(student, x);
  widen_all(target, y);
  for (int r = 0; r < kRegisters; ++r) {
    const doubles d = x[r] - y[r];
    sum[r] += d < 0 ? -d : d;
  }
}

template <class T>
double absolute(const TrajectoryBlock<T>& block) noexcept {
  doubles sum[kRegisters] = {};
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
