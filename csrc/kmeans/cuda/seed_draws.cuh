// SPDX-License-Identifier: Apache-2.0
// Draws with probabilities in proportion to integer masses, by one block: of tiles by their sums,
// or of rows.
#pragma once

#include "kmeans/cuda/arithmetic.cuh"

namespace ddkern::kmeans::cuda {

constexpr int kDrawThreads = 256;
constexpr int kDrawWarps = kDrawThreads / kWarp;

// Draws n_draws of the items 0 .. n - 1 with probabilities mass(i) / total, for the targets u(t):
// items[t], and rests[t], how far into its mass the target falls. All threads of the block call it;
// returns the total, and draws nothing if that is 0. At most kMostTrials draws.
template <class Mass, class Uniform>
__device__ std::int64_t draw_items(std::int64_t n, int n_draws, const Mass& mass, const Uniform& u,
                                   std::int64_t* items, std::int64_t* rests) {
  __shared__ std::int64_t prefix[kDrawWarps + 1], targets[kMostTrials];
  // A thread has neighbouring items.
  const std::int64_t each = (n + kDrawThreads - 1) / kDrawThreads;
  const std::int64_t first = min(each * static_cast<int>(threadIdx.x), n);
  const std::int64_t last = min(first + each, n);
  std::int64_t sum = 0;
  for (std::int64_t i = first; i < last; ++i) sum += mass(i);
  const std::int64_t before = ddkern::cuda::block_prefix(sum, prefix);
  const std::int64_t total = prefix[kDrawWarps];
  if (total == 0) return 0;
  if (static_cast<int>(threadIdx.x) < n_draws) {
    targets[threadIdx.x] = draw_target(u(static_cast<int>(threadIdx.x)), total);
  }
  __syncthreads();
  for (int t = 0; t < n_draws; ++t) {
    std::int64_t rest = targets[t] - before;
    if (rest < 0 || rest >= sum) continue;  // another thread's
    std::int64_t i = first;
    for (std::int64_t m = mass(i); rest >= m; m = mass(i)) {
      rest -= m;
      ++i;
    }
    items[t] = i;
    rests[t] = rest;
  }
  __syncthreads();
  return total;
}

}  // namespace ddkern::kmeans::cuda
