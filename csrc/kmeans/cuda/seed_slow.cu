// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/seed_slow.h"

#include "kmeans/cuda/arithmetic.cuh"
#include "kmeans/cuda/seed_draws.cuh"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::block_reduce;
using ddkern::cuda::Largest;
using ddkern::cuda::Least;
using ddkern::cuda::Sum;

constexpr int kThreads = kDrawThreads;
constexpr int kWarps = kDrawWarps;

// The grid of the masses follows from the largest distance; then their total and the trials.
__device__ std::int64_t weigh_and_draw(const ChunkTables& chunk, const SeedTables& tables,
                                       const GroupShape& shape, GroupSeeding& seeding,
                                       unsigned step, unsigned restart, int n_draws, double* shared,
                                       std::int64_t* found, std::int64_t* rests) {
  double largest = 0;
  for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
    largest = fmax(largest, tables.closest[shape.begin + i]);
  }
  largest = block_reduce(largest, Largest{}, shared);
  const int shift = shape.grid_bits - grid_exponent(largest);
  const double unit = power_of_two(shift);
  const std::int64_t total = draw_items(
      shape.n, n_draws,
      [&](std::int64_t i) {
        const std::int64_t position = shape.begin + i;
        return weighted_integer(tables.closest[position] * unit, chunk.weights, position);
      },
      [&](int t) { return uniform(shape.seed, shape.id, step, restart, static_cast<unsigned>(t)); },
      found, rests);
  if (threadIdx.x == 0) {
    seeding.total = total;
    seeding.shift = shift;
    seeding.unit = unit;
  }
  return total;
}

// d64 to a row, for rows that are not there yet, by the whole block.
template <class T>
__device__ void nearer_directly(const Chunk<T>& chunk, const SeedTables& tables, int g,
                                std::int64_t to, double* out) {
  const GroupShape& shape = chunk.shapes[g];
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t at_once = kThreads / kLanes;
  for (std::int64_t first = 0; first < shape.n; first += at_once) {
    const std::int64_t i = first + static_cast<int>(threadIdx.x) / kLanes;
    const std::int64_t position = shape.begin + (i < shape.n ? i : 0);
    const double distance = sq_distance(chunk.row(position), chunk.row(shape.begin + to),
                                        chunk.frames[g].scale, chunk.n_features, lane);
    if (i < shape.n && lane == 0) {
      out[position] = fmin(tables.closest[position], distance);
    }
  }
  __syncthreads();
}

// A whole step of a group that float32 cannot serve: by one block, in float64.
template <class T>
__global__ void __launch_bounds__(kThreads, 3)
    slow_kernel(Chunk<T> chunk, SeedTables tables, int step, unsigned restart) {
  __shared__ std::int64_t found[kMostTrials], rests[kMostTrials], sums[kWarps];
  __shared__ double shared[kWarps];
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  GroupSeeding& seeding = tables.groups[g];
  if (step >= shape.k || seeding.slow == 0) return;
  std::int32_t* seeds = tables.seeds + shape.first_cell;
  if (seeding.n_taken == shape.n_positive) {
    draw_items(
        shape.n, 1, [&](std::int64_t i) { return chunk.units_at(shape.begin + i); },
        [&](int) { return uniform(shape.seed, shape.id, static_cast<unsigned>(step), restart, 0); },
        found, rests);
    if (threadIdx.x == 0) seeds[step] = static_cast<std::int32_t>(found[0]);
    return;
  }
  std::int64_t total = seeding.total;
  const bool was_direct = seeding.direct != 0;
  if (!was_direct) {
    for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
      const std::int64_t position = shape.begin + i;
      tables.closest[position] = chunk.counts(position) ? INFINITY : 0;
    }
    __syncthreads();
    for (int s = 0; s < step; ++s) nearer_directly(chunk, tables, g, seeds[s], tables.closest);
    total = weigh_and_draw(chunk, tables, shape, seeding, static_cast<unsigned>(step), restart,
                           shape.n_trials, shared, found, rests);
    __syncthreads();
  }
  if (total == 0) {
    std::int64_t first = shape.n;
    for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
      const std::int64_t position = shape.begin + i;
      if (chunk.counts(position) && tables.taken[position] == 0 && i < first) first = i;
    }
    first = block_reduce(first, Least{}, sums);
    nearer_directly(chunk, tables, g, first, tables.closest);
    if (threadIdx.x == 0) {
      seeds[step] = static_cast<std::int32_t>(first);
      seeding.direct = 1;
    }
    return;
  }
  const double unit = seeding.unit;
  std::int64_t least = 0;
  int best = -1;
  for (int t = 0; t < shape.n_trials; ++t) {
    const std::int64_t candidate = was_direct ? seeding.candidate[t] : found[t];
    double* nearer = tables.distances + t * chunk.n_rows;
    nearer_directly(chunk, tables, g, candidate, nearer);
    std::int64_t potential = 0;
    for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
      const std::int64_t position = shape.begin + i;
      if (!chunk.counts(position)) continue;
      potential += weighted_integer(nearer[position] * unit, chunk.weights, position);
    }
    potential = block_reduce(potential, Sum{}, sums);
    if (best < 0 || potential < least) {
      best = t;
      least = potential;
    }
  }
  const double* nearer = tables.distances + best * chunk.n_rows;
  for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
    tables.closest[shape.begin + i] = nearer[shape.begin + i];
  }
  if (threadIdx.x == 0) {
    seeds[step] = static_cast<std::int32_t>(was_direct ? seeding.candidate[best] : found[best]);
    seeding.direct = 1;
  }
}

}  // namespace

template <class T>
void take_slow_steps(const Chunk<T>& chunk, const SeedTables& tables, int step, unsigned restart,
                     cudaStream_t stream) {
  DDKERN_LAUNCH(slow_kernel<T>, chunk.n_groups, kThreads, 0, stream, chunk, tables, step, restart);
}

template void take_slow_steps(const Chunk<float>&, const SeedTables&, int, unsigned, cudaStream_t);
template void take_slow_steps(const Chunk<double>&, const SeedTables&, int, unsigned, cudaStream_t);

}  // namespace ddkern::kmeans::cuda
