// SPDX-License-Identifier: Apache-2.0
// update: what optimisers do to flat parameters; one block of them.
//
//   linear:   out = alpha x + beta y
//   momentum: velocity_out = momentum velocity + gradient,  out = theta - lr velocity_out
//   ascent:   out = factor gradient, or with a size factor ((size size) gradient)
//   squares:  sum gradient^2, or with a size sum (size gradient)^2
//
// Numerics. Values are float32, and every operation that is written here is rounded on its own, so
// the bits are the same at every level. The sum is float64 and added as those of trajectory are:
// 32 chains, then pairwise. An `out` may be any of the arguments of its block.
#pragma once

#include <cstdint>

#include "core/isa.h"

namespace ddkern::matching {

struct LinearBlock {
  std::int64_t n;
  const float* x;  // [n]
  const float* y;  // [n]
  float* out;      // out [n]
};

struct MomentumBlock {
  std::int64_t n;
  const float* theta;     // [n]
  const float* velocity;  // [n]
  const float* gradient;  // [n]
  float* theta_out;       // out [n]
  float* velocity_out;    // out [n]
};

struct AscentBlock {
  std::int64_t n;
  const float* gradient;  // [n]
  const float* size;      // [n], or null
  float* out;             // out [n]
};

struct UpdateOps {
  void (*linear)(const LinearBlock& block, float alpha, float beta) noexcept;
  void (*momentum)(const MomentumBlock& block, float lr, float momentum) noexcept;
  void (*ascent)(const AscentBlock& block, float factor) noexcept;
  double (*squares)(const AscentBlock& block) noexcept;
};

extern const UpdateOps update_base;
extern const UpdateOps update_avx2;
extern const UpdateOps update_avx512;

const UpdateOps& update_ops(Isa isa);

}  // namespace ddkern::matching
