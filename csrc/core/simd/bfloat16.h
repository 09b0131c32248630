// SPDX-License-Identifier: Apache-2.0
// Registers of bfloat16 to two registers of float32 and back. Internal linkage only.
//
// The even numbers go to the first and the odd ones to the second: a shift and a mask then do what
// would otherwise take moves across lanes, on every level. Whoever has float32 values beside them
// takes those apart in the same way (deinterleave, interleave).
#pragma once

#include "core/bfloat16.h"
#include "core/simd/vector.h"

namespace ddkern::simd {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the even number is the lower half");

typedef std::uint32_t uint32s __attribute__((vector_size(kRegisterBytes)));

DDKERN_SIMD_INLINE void widen_bfloat16(const Bfloat16* from, floats& even, floats& odd) {
  const uint32s pairs = load<uint32s>(from);
  even = (floats)(pairs << 16);
  odd = (floats)(pairs & 0xffff0000u);
}

// Rounded to nearest, ties to even, in the upper half; what is in the lower one is no part of it.
// Not the conversion of avx512bf16, which takes denormals for zero.
DDKERN_SIMD_INLINE uint32s round_to_upper_half(const floats& v) {
  const uint32s bits = (uint32s)v;
  const uint32s rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  // The carry would turn some NaN into a number.
  return v != v ? (bits | 0x400000u) : rounded;
}

DDKERN_SIMD_INLINE void narrow_to_bfloat16(const floats& even, const floats& odd, Bfloat16* to) {
  store(to, (round_to_upper_half(even) >> 16) | (round_to_upper_half(odd) & 0xffff0000u));
}

DDKERN_SIMD_INLINE void deinterleave(const float* from, floats& even, floats& odd) {
  for (int l = 0; l < kFloats; ++l) {
    even[l] = from[2 * l];
    odd[l] = from[2 * l + 1];
  }
}
DDKERN_SIMD_INLINE void interleave(const floats& even, const floats& odd, float* to) {
  for (int l = 0; l < kFloats; ++l) {
    to[2 * l] = even[l];
    to[2 * l + 1] = odd[l];
  }
}

}  // namespace ddkern::simd
