// SPDX-License-Identifier: Apache-2.0
// Doubles to integers, ties to even, with additions alone. Internal linkage only.
#pragma once

#include "core/simd/vector.h"

namespace ddkern::simd {

// Adding 1.5 * 2^52 leaves a double whose low bits are the rounded integer plus a constant: every
// level has the two additions, few have the conversion. |v| < 2^51.
[[maybe_unused]] constexpr double kRound = 0x1.8p52;

DDKERN_SIMD_INLINE int64s round_doubles(const doubles& v) {
  const doubles constant = doubles{} + kRound, shifted = v + constant;
  return load<int64s>(&shifted) - load<int64s>(&constant);
}

DDKERN_SIMD_INLINE std::int64_t round_f64(double v) {
  const double shifted = v + kRound, constant = kRound;
  std::int64_t bits, zero;
  std::memcpy(&bits, &shifted, sizeof(bits));
  std::memcpy(&zero, &constant, sizeof(zero));
  return bits - zero;
}

// For |v| < 2^62, in two parts: the multiples of 2^32 and the rest.
DDKERN_SIMD_INLINE int64s round_wide_doubles(const doubles& v) {
  const doubles high = (v * 0x1p-32 + kRound) - kRound;
  return (round_doubles(high) << 32) + round_doubles(v - high * 0x1p32);
}
DDKERN_SIMD_INLINE std::int64_t round_wide_f64(double v) {
  const double high = (v * 0x1p-32 + kRound) - kRound;
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(round_f64(high)) << 32) +
         round_f64(v - high * 0x1p32);
}

}  // namespace ddkern::simd
