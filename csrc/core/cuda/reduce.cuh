// SPDX-License-Identifier: Apache-2.0
// Reductions of a warp and of a block, and atomics on 64-bit integers. Integers and maxima only:
// their order changes no bit. warp_reduce() also takes doubles whose sum is defined in its order:
// lanes 16 apart first, then 8, 4, 2 and 1.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"

namespace ddkern::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Sum {
  template <class V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};
struct Largest {
  template <class V>
  __device__ V operator()(V a, V b) const {
    return a < b ? b : a;
  }
};
struct Least {
  template <class V>
  __device__ V operator()(V a, V b) const {
    return b < a ? b : a;
  }
};

// Every lane has the result.
template <class V, class Join>
__device__ V warp_reduce(V value, Join join) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value = join(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  return value;
}

// Every thread has the result. `shared` holds one V a warp; all threads of the block take part, and
// blockDim.x is a multiple of the warp.
template <class V, class Join>
__device__ V block_reduce(V value, Join join, V* shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  value = warp_reduce(value, join);
  __syncthreads();  // of an earlier use of `shared`
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  V result = shared[0];
  for (int w = 1; w < static_cast<int>(blockDim.x) / kWarp; ++w) result = join(result, shared[w]);
  return result;
}

// The sum of the values of the threads before this one. `shared` holds one V a warp and one more,
// the sum of all.
template <class V>
__device__ V block_prefix(V value, V* shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int n_warps = static_cast<int>(blockDim.x) / kWarp;
  V until = value;
  for (int step = 1; step < kWarp; step *= 2) {
    const V before = __shfl_up_sync(kAllLanes, until, step);
    if (lane >= step) until += before;
  }
  __syncthreads();
  if (lane == kWarp - 1) shared[warp] = until;
  __syncthreads();
  V start = 0;
  for (int w = 0; w < warp; ++w) start += shared[w];
  if (warp == n_warps - 1 && lane == kWarp - 1) shared[n_warps] = start + until;
  __syncthreads();
  return start + until - value;
}

inline __device__ void atomic_add(std::int64_t* to, std::int64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}

// Non-negative doubles compare as their bits.
inline __device__ void atomic_max(double* to, double value) {
  atomicMax(reinterpret_cast<unsigned long long*>(to),
            static_cast<unsigned long long>(__double_as_longlong(value)));
}

}  // namespace ddkern::cuda
