// SPDX-License-Identifier: Apache-2.0
// Parts of networks on batches of images, in place of several calls of a deep-learning library.
//
// The arithmetic is that of the ops, one folder each. Here images and channels are handed to
// threads, and what images add to gradients of parameters is summed in the order of the images, in
// float64: the same bits for any number of threads.
#pragma once

#include <cstdint>

#include "network/norm_relu_pool/norm_relu_pool.h"

namespace ddkern::network {

// All maps lie with the channels last and without gaps.
template <class T>
struct NormReluPoolForwardCall {
  std::int64_t n;
  MapShape shape;
  float eps;
  const T* x;           // [n, h, w, c]
  const float* weight;  // [c]
  const float* bias;    // [c]
  T* out;               // out [n, h / 2, w / 2, c]
  float* mean;          // out [n, c]
  float* rstd;          // out [n, c]
};

template <class T>
struct NormReluPoolBackwardCall {
  std::int64_t n;
  MapShape shape;
  const T* grad_out;    // [n, h / 2, w / 2, c]
  const T* x;           // [n, h, w, c]
  const float* mean;    // [n, c]
  const float* rstd;    // [n, c]
  const float* weight;  // [c]
  const float* bias;    // [c]
  T* grad_x;            // out [n, h, w, c], or null
  float* grad_weight;   // out [c]
  float* grad_bias;     // out [c]
};

// T is float or Bfloat16. At most n_threads threads, fewer where there is little to do.
template <class T>
void norm_relu_pool_forward(const NormReluPoolForwardCall<T>& call, int n_threads);
template <class T>
void norm_relu_pool_backward(const NormReluPoolBackwardCall<T>& call, int n_threads);

}  // namespace ddkern::network
