// SPDX-License-Identifier: Apache-2.0
// Values as they are stored, float32 or bfloat16, and as kernels compute with them.
#pragma once

#include <cstdint>

#include "core/bfloat16.h"
#include "core/cuda/launch.h"

namespace ddkern::cuda {

inline __device__ float to_float(float value) { return value; }
inline __device__ float to_float(Bfloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}

inline __device__ void round_to(float value, float& to) { to = value; }
// To nearest, ties to even, as core/simd/bfloat16.h does: the carry would turn some NaN into a
// number.
inline __device__ void round_to(float value, Bfloat16& to) {
  const unsigned bits = __float_as_uint(value);
  const unsigned rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  to.bits = static_cast<std::uint16_t>((value != value ? bits | 0x400000u : rounded) >> 16);
}

// What one load takes, at a multiple of 16 bytes.
template <class T>
struct alignas(16) Pack {
  static constexpr int kValues = 16 / static_cast<int>(sizeof(T));
  T value[kValues];
};

template <class T>
__device__ __forceinline__ bool is_aligned(const T* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % alignof(Pack<T>) == 0;
}

}  // namespace ddkern::cuda
