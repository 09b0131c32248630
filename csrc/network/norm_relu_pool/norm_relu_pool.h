// SPDX-License-Identifier: Apache-2.0
// norm_relu_pool: what follows a convolution in a ConvNet, on one image, forward and backward.
//
//   N = h * w, sums over all pixels of one channel
//   mean = sum x / N,  var = sum (x - mean)^2 / N,  rstd = 1 / sqrt(var + eps)
//   z    = (x - mean) * (weight * rstd) + bias
//   out  = mean of max(z, 0) over 2 x 2 pixels; an odd last row or column counts in mean and var
//   only
//
//   g         = grad_out / 4 where a window covers the pixel and not z <= 0, else 0
//   sum_g     = sum g,  sum_gu = rstd * sum g * (x - mean)       this image's part of the gradients
//                                                                of bias and weight
//   grad_x    = weight * rstd * (g - sum_g / N - (x - mean) * rstd * sum_gu / N)
//
// Numerics. x, out, grad_out and grad_x are float32 or bfloat16, widened exactly and rounded once,
// to nearest even; all else is float32. Sums run along a row, two neighbours at a time (forward),
// or along a row of windows (backward), and the rows' sums are added up: chains of w / 2 and h. The
// variance is that of the corrected two-pass algorithm: with m the mean as first summed and
// d = x - m, mean = m + sum d / N and var = (sum d^2 - (sum d)^2 / N) / N, so that neither suffers
// from a mean that is large beside the deviation. x - mean is taken before it is scaled, for the
// same reason. z is computed in both directions by the same operations, so the backward pass finds
// the mask of the forward pass without its being stored.
//
// Squares of x - mean have to be finite in float32: deviations up to 2^60, far from any map.
// NaN and infinities spread as in the formulas: max(NaN, 0) is NaN, and its gradient passes.
//
// Channels are lanes that never meet, no multiplication is fused with an addition, and the order of
// sums is that above: the same bits at every level, and for any split of images and channels.
//
// The three passes (two backward) go through a few registers' channels at a time, so that an image
// comes from memory once and from the second cache after that: 64 channels of 32 x 32 pixels are
// 128 KiB of bfloat16.
#pragma once

#include <cstdint>

#include "core/bfloat16.h"
#include "core/isa.h"

namespace ddkern::network {

struct MapShape {
  std::int64_t h, w;  // 2 or more
  std::int64_t c;
};

// One image; channels [begin, end) of it.
template <class T>
struct NormReluPoolForward {
  MapShape shape;
  std::int64_t begin, end;
  float eps;
  const T* x;           // [h, w, c]
  const float* weight;  // [c]
  const float* bias;    // [c]
  T* out;               // out [h / 2, w / 2, c]
  float* mean;          // out [c]
  float* rstd;          // out [c]
};

template <class T>
struct NormReluPoolBackward {
  MapShape shape;
  std::int64_t begin, end;
  const T* grad_out;    // [h / 2, w / 2, c]
  const T* x;           // [h, w, c]
  const float* mean;    // [c]
  const float* rstd;    // [c]
  const float* weight;  // [c]
  const float* bias;    // [c]
  T* grad_x;            // out [h, w, c], or null
  float* sum_gu;        // out [c]
  float* sum_g;         // out [c]
};

template <class T>
struct NormReluPoolOps {
  void (*forward)(const NormReluPoolForward<T>& args) noexcept;
  void (*backward)(const NormReluPoolBackward<T>& args) noexcept;
};

struct NormReluPoolTable {
  NormReluPoolOps<float> f32;
  NormReluPoolOps<Bfloat16> bf16;
};

extern const NormReluPoolTable norm_relu_pool_base;
extern const NormReluPoolTable norm_relu_pool_avx2;
extern const NormReluPoolTable norm_relu_pool_avx512;

// T is float or Bfloat16.
template <class T>
const NormReluPoolOps<T>& norm_relu_pool_ops(Isa isa);

}  // namespace ddkern::network
