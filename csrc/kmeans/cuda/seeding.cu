// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/seeding.h"

#include <algorithm>
#include <cmath>

#include "kmeans/cuda/arithmetic.cuh"
#include "kmeans/cuda/seed_chains.h"
#include "kmeans/cuda/seed_draws.h"
#include "kmeans/cuda/seed_slow.h"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::blocks_for;
using ddkern::cuda::Sum;

constexpr int kThreads = 256;

// Bounds of d32 from the Gram matrix, for a row a thread and all trials of the step; rows that
// cannot come nearer are left as they are.
__global__ void __launch_bounds__(kTileRows)
    screen_kernel(ChunkTables chunk, SeedTables tables, int step, double product_error) {
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  GroupSeeding& seeding = tables.groups[tile.group];
  if (step >= shape.k || seeding.slow != 0) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t i = tile.first + static_cast<int>(threadIdx.x);
  const std::int64_t position = shape.begin + (i < shape.n ? i : 0);
  const double now = i < shape.n ? tables.closest[position] : 0;
  const double lost = chunk.lost[position], norm = chunk.norms[position], length = lost + norm;
  const double own = tables.chain_norms[position];
  const double weight = chunk.weights == nullptr ? 1.0 : chunk.weights[position];
  // Masses are rounded twice, before and after weighting, and so is what is taken away.
  const auto rounding = static_cast<std::int64_t>(weight) + 4;
  const double unit = seeding.unit * weight;
  // The product against the exact one, that of rows rounded to float32, and its chain.
  const double chain_error = chunk.n_features * 0x1.01p-24 + 0x1p-21;
  for (int trial = 0; trial < shape.n_trials; ++trial) {
    const std::int64_t candidate = seeding.candidate[trial];
    bool open = false;
    std::int64_t least_gain = 0, most_gain = 0;
    if (now > 0) {
      const std::int64_t other = shape.begin + candidate;
      const double product = chunk.gram[shape.gram + candidate * shape.gram_stride + i];
      const double other_lost = chunk.lost[other], other_norm = chunk.norms[other];
      const double other_length = other_lost + other_norm, others = tables.chain_norms[other];
      const double error = lost * other_length + norm * other_lost +
                           product_error * norm * other_norm + chain_error * length * other_length +
                           chunk.n_features * 0x1p-148;
      const double middle = (own - 2 * product) + others;
      const double slack = 2 * error + 0x1p-48 * (own + others + 2 * fabs(product));
      const double lower = fmax(0.0, middle - slack), upper = fmax(0.0, middle + slack);
      open = lower < now;
      if (open) {
        least_gain =
            static_cast<std::int64_t>(unit * fmax(0.0, now - upper) * (1 - 0x1p-50)) - rounding;
        most_gain = static_cast<std::int64_t>(unit * (now - lower) * (1 + 0x1p-50)) + rounding;
      }
    }
    const unsigned mask = __ballot_sync(kAllLanes, open);
    if (mask == 0) continue;
    int base = 0;
    if (lane == 0) base = atomicAdd(&seeding.n_open[trial], __popc(mask));
    base = __shfl_sync(kAllLanes, base, 0);
    if (open) {
      const int slot = base + __popc(mask & ((1u << lane) - 1));
      tables.open[trial * chunk.n_rows + shape.begin + slot] = static_cast<std::int32_t>(i);
    }
    least_gain = ddkern::cuda::warp_reduce(least_gain, Sum{});
    most_gain = ddkern::cuda::warp_reduce(most_gain, Sum{});
    if (lane == 0) {
      ddkern::cuda::atomic_add(&seeding.least_gain[trial], least_gain);
      ddkern::cuda::atomic_add(&seeding.most_gain[trial], most_gain);
    }
  }
}

inline __device__ void append_items(ChainItem* items, int* n_items, int g, int trial, int n_open) {
  const int n = (n_open + kWarp - 1) / kWarp;
  const int at = atomicAdd(n_items, n);
  for (int i = 0; i < n; ++i) items[at + i] = {g, trial, i * kWarp};
}

// The most promising trial first: its gain, once known, rules out most of the others.
__global__ void pick_first_kernel(ChunkTables chunk, SeedTables tables, int step) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g >= chunk.n_groups) return;
  const GroupShape& shape = chunk.shapes[g];
  GroupSeeding& seeding = tables.groups[g];
  if (step >= shape.k || seeding.slow != 0) return;
  int first = 0;
  double promise = -HUGE_VAL;
  for (int t = 0; t < shape.n_trials; ++t) {
    const double mine =
        static_cast<double>(seeding.least_gain[t]) + static_cast<double>(seeding.most_gain[t]);
    if (mine > promise) {
      promise = mine;
      first = t;
    }
  }
  seeding.first_trial = first;
  append_items(tables.items, tables.n_items, g, first, seeding.n_open[first]);
}

__global__ void pick_rest_kernel(ChunkTables chunk, SeedTables tables, int step) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g >= chunk.n_groups) return;
  const GroupShape& shape = chunk.shapes[g];
  GroupSeeding& seeding = tables.groups[g];
  if (step >= shape.k || seeding.slow != 0) return;
  std::int64_t bar = seeding.gain[seeding.first_trial];
  for (int t = 0; t < shape.n_trials; ++t) {
    bar = seeding.least_gain[t] > bar ? seeding.least_gain[t] : bar;
  }
  unsigned wanted = 0;
  ChainItem* items = tables.items + most_chain_items(chunk.n_rows, chunk.n_groups, 1);
  for (int t = 0; t < shape.n_trials; ++t) {
    if (t == seeding.first_trial || seeding.most_gain[t] < bar) continue;
    wanted |= 1u << t;
    append_items(items, tables.n_items + 1, g, t, seeding.n_open[t]);
  }
  seeding.wanted = wanted;
}

// The largest gain is the least potential; the lowest trial among equals. `lists`: only the trials
// that were wanted have a gain.
__global__ void choose_kernel(ChunkTables chunk, SeedTables tables, int step, bool lists) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g >= chunk.n_groups) return;
  const GroupShape& shape = chunk.shapes[g];
  GroupSeeding& seeding = tables.groups[g];
  if (step >= shape.k || seeding.slow != 0) return;
  int best = -1;
  for (int t = 0; t < shape.n_trials; ++t) {
    if (lists && t != seeding.first_trial && (seeding.wanted >> t & 1) == 0) continue;
    if (best < 0 || seeding.gain[t] > seeding.gain[best]) best = t;
  }
  seeding.winner = best;
  tables.seeds[shape.first_cell + step] = seeding.candidate[best];
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    copy_seeds_kernel(Chunk<T> chunk, const std::int32_t* seeds) {
  const int g = static_cast<int>(blockIdx.y);
  const GroupShape& shape = chunk.shapes[g];
  for (int c = static_cast<int>(blockIdx.x); c < shape.k; c += static_cast<int>(gridDim.x)) {
    const std::int64_t cell = shape.first_cell + c;
    const T* row = chunk.row(shape.begin + seeds[cell]);
    T* centroid = chunk.centroids + cell * chunk.n_features;
    for (int j = static_cast<int>(threadIdx.x); j < chunk.n_features; j += kThreads) {
      centroid[j] = row[j];
    }
  }
}

}  // namespace

int n_trials_for(std::int64_t k) {
  return 2 + static_cast<int>(std::floor(std::log(static_cast<double>(k))));
}

template <class T>
void seed_plus_plus(const Chunk<T>& chunk, const SeedTables& tables, std::int64_t most_k,
                    unsigned restart, double product_error, const Poll& poll, cudaStream_t stream) {
  const bool lists = tables.open != nullptr;
  const int most_trials = n_trials_for(most_k);
  const unsigned n_tiles = static_cast<unsigned>(chunk.n_tiles);
  const unsigned group_blocks = blocks_for(chunk.n_groups, kWarp);
  start_seeding(chunk, tables, stream);
  draw_untaken(chunk, tables, 0, restart, stream);
  take_first_chains(chunk, tables, stream);
  for (std::int64_t k = 1; k <= most_k; ++k) {
    const int step = static_cast<int>(k);
    end_step(chunk, tables, step, true, lists && step > 1, stream);
    draw_candidates(chunk, tables, step, restart, stream);
    if (k == most_k) break;
    poll();
    take_slow_steps(chunk, tables, step, restart, stream);
    if (lists) {
      DDKERN_CUDA_TRY(cudaMemsetAsync(tables.n_items, 0, 2 * sizeof(int), stream));
      DDKERN_LAUNCH(screen_kernel, n_tiles, kTileRows, 0, stream, chunk, tables, step,
                    product_error);
      DDKERN_LAUNCH(pick_first_kernel, group_blocks, kWarp, 0, stream, chunk, tables, step);
      take_listed_chains(chunk, tables, 0, stream);
      DDKERN_LAUNCH(pick_rest_kernel, group_blocks, kWarp, 0, stream, chunk, tables, step);
      take_listed_chains(chunk, tables, 1, stream);
    } else {
      take_all_chains(chunk, tables, step, most_trials, stream);
    }
    DDKERN_LAUNCH(choose_kernel, group_blocks, kWarp, 0, stream, chunk, tables, step, lists);
  }
}

template <class T>
void seed_random(const Chunk<T>& chunk, const SeedTables& tables, std::int64_t most_k,
                 unsigned restart, const Poll& poll, cudaStream_t stream) {
  start_seeding(chunk, tables, stream);
  for (std::int64_t k = 0; k < most_k; ++k) {
    const int step = static_cast<int>(k);
    if (step > 0) end_step(chunk, tables, step, false, false, stream);
    draw_untaken(chunk, tables, step, restart, stream);
    poll();
  }
}

template <class T>
void copy_seeds(const Chunk<T>& chunk, const std::int32_t* seeds, cudaStream_t stream) {
  const dim3 grid(64, static_cast<unsigned>(chunk.n_groups));
  DDKERN_LAUNCH(copy_seeds_kernel<T>, grid, kThreads, 0, stream, chunk, seeds);
}

#define DDKERN_INSTANTIATE(T)                                                                      \
  template void seed_plus_plus(const Chunk<T>&, const SeedTables&, std::int64_t, unsigned, double, \
                               const Poll&, cudaStream_t);                                         \
  template void seed_random(const Chunk<T>&, const SeedTables&, std::int64_t, unsigned,            \
                            const Poll&, cudaStream_t);                                            \
  template void copy_seeds(const Chunk<T>&, const std::int32_t*, cudaStream_t)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(double);

}  // namespace ddkern::kmeans::cuda
