// SPDX-License-Identifier: Apache-2.0
// Sums over values in 32 float64 chains, the same at every level. Internal linkage only.
//
// Value i of a run goes to chain i mod 32. Which register holds a chain is this header's business:
// bfloat16 comes apart into even and odd numbers. The chains are added pairwise: 0 + 16, 1 + 17,
// ...; 0 + 8, ...
#pragma once

#include "core/simd/bfloat16.h"
#include "core/simd/vector.h"

namespace ddkern::simd {

// Values that are taken at a time, one for each chain; the registers of every level divide it.
constexpr int kChains = 32;
constexpr int kChainRegisters = kChains / kDoubles;
static_assert(kChainRegisters % 4 == 0, "a register of bfloat16 becomes four of doubles");

// 32 values to doubles.
DDKERN_SIMD_INLINE void widen_chains(const float* from, doubles (&v)[kChainRegisters]) {
  for (int r = 0; r < kChainRegisters; ++r) v[r] = load_doubles(from + r * kDoubles);
}
DDKERN_SIMD_INLINE void widen_chains(const Bfloat16* from, doubles (&v)[kChainRegisters]) {
  for (int r = 0; r < kChainRegisters; r += 4) {
    float wide[2 * kFloats];
    floats even, odd;
    widen_bfloat16(from + r * kDoubles, even, odd);
    store(wide, even);
    store(wide + kFloats, odd);
    for (int q = 0; q < 4; ++q) v[r + q] = load_doubles(wide + q * kDoubles);
  }
}

// 32 doubles to values, rounded to float32 and for bfloat16 once more.
DDKERN_SIMD_INLINE void narrow_chains(const doubles (&v)[kChainRegisters], float* to) {
  for (int r = 0; r < kChainRegisters; ++r) store(to + r * kDoubles, narrow(v[r]));
}
DDKERN_SIMD_INLINE void narrow_chains(const doubles (&v)[kChainRegisters], Bfloat16* to) {
  for (int r = 0; r < kChainRegisters; r += 4) {
    float wide[2 * kFloats];
    for (int q = 0; q < 4; ++q) store(wide + q * kDoubles, narrow(v[r + q]));
    narrow_to_bfloat16(load<floats>(wide), load<floats>(wide + kFloats), to + r * kDoubles);
  }
}

// The chain that lane l of register r belongs to.
template <class T>
[[maybe_unused]] static constexpr int chain_of(int r, int lane) {
  if (sizeof(T) == sizeof(float)) return r * kDoubles + lane;
  const int group = r / 4 * 4 * kDoubles, half = r % 2 * kDoubles, odd = r % 4 / 2;
  return group + 2 * (half + lane) + odd;
}

template <class T>
DDKERN_SIMD_INLINE double sum_chains(const doubles (&v)[kChainRegisters]) {
  double chain[kChains];
  for (int r = 0; r < kChainRegisters; ++r) {
    for (int l = 0; l < kDoubles; ++l) chain[chain_of<T>(r, l)] = v[r][l];
  }
  for (int half = kChains / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) chain[i] += chain[i + half];
  }
  return chain[0];
}

}  // namespace ddkern::simd
