// SPDX-License-Identifier: Apache-2.0
// The body of update. Internal linkage only.
#pragma once

#include "core/simd/chains.h"
#include "matching/update/update.h"

namespace {

using namespace ddkern::simd;
using ddkern::matching::AscentBlock;
using ddkern::matching::LinearBlock;
using ddkern::matching::MomentumBlock;

// The first `count` values of a register; the others are 0, and are not stored.
inline floats load_some(const float* from, int count) {
  if (count == kFloats) return load<floats>(from);
  floats v = {};
  std::memcpy(&v, from, static_cast<std::size_t>(count) * sizeof(float));
  return v;
}
inline void store_some(float* to, const floats& v, int count) {
  if (count == kFloats) {
    store(to, v);
  } else {
    std::memcpy(to, &v, static_cast<std::size_t>(count) * sizeof(float));
  }
}

// run(i, count) for the registers of n values.
template <class Run>
inline void for_registers(std::int64_t n, const Run& run) {
  std::int64_t i = 0;
  for (; i + kFloats <= n; i += kFloats) run(i, kFloats);
  if (i < n) run(i, static_cast<int>(n - i));
}

void linear(const LinearBlock& of, float alpha, float beta) noexcept {
  for_registers(of.n, [&](std::int64_t i, int count) {
    store_some(of.out + i, alpha * load_some(of.x + i, count) + beta * load_some(of.y + i, count),
               count);
  });
}

void momentum(const MomentumBlock& of, float lr, float momentum) noexcept {
  for_registers(of.n, [&](std::int64_t i, int count) {
    const floats theta = load_some(of.theta + i, count);
    const floats velocity =
        momentum * load_some(of.velocity + i, count) + load_some(of.gradient + i, count);
    store_some(of.velocity_out + i, velocity, count);
    store_some(of.theta_out + i, theta - lr * velocity, count);
  });
}

void ascent(const AscentBlock& of, float factor) noexcept {
  if (of.size == nullptr) {
    for_registers(of.n, [&](std::int64_t i, int count) {
      store_some(of.out + i, factor * load_some(of.gradient + i, count), count);
    });
    return;
  }
  for_registers(of.n, [&](std::int64_t i, int count) {
    const floats size = load_some(of.size + i, count);
    store_some(of.out + i, factor * (size * size * load_some(of.gradient + i, count)), count);
  });
}

template <bool kWithSize>
inline void add_squares(const float* gradient, const float* size,
                        doubles (&sums)[kChainRegisters]) {
  doubles v[kChainRegisters], by[kChainRegisters];
  widen_chains(gradient, v);
  if constexpr (kWithSize) widen_chains(size, by);
  for (int r = 0; r < kChainRegisters; ++r) {
    if constexpr (kWithSize) v[r] *= by[r];
    sums[r] += v[r] * v[r];
  }
}

template <bool kWithSize>
inline double squares_of(const AscentBlock& of) {
  doubles sums[kChainRegisters] = {};
  std::int64_t i = 0;
  for (; i + kChains <= of.n; i += kChains) {
    add_squares<kWithSize>(of.gradient + i, kWithSize ? of.size + i : nullptr, sums);
  }
  if (i < of.n) {
    // What lies beyond the end is 0, and adds 0.
    const auto bytes = static_cast<std::size_t>(of.n - i) * sizeof(float);
    float gradient[kChains] = {}, size[kChains] = {};
    std::memcpy(gradient, of.gradient + i, bytes);
    if (kWithSize) std::memcpy(size, of.size + i, bytes);
    add_squares<kWithSize>(gradient, size, sums);
  }
  return sum_chains<float>(sums);
}

double squares(const AscentBlock& of) noexcept {
  return of.size == nullptr ? squares_of<false>(of) : squares_of<true>(of);
}

}  // namespace
