// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/seed_draws.h"

#include "kmeans/cuda/arithmetic.cuh"
#include "kmeans/cuda/row_means.h"
#include "kmeans/cuda/seed_draws.cuh"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::block_reduce;
using ddkern::cuda::Sum;

__global__ void __launch_bounds__(kTileRows) start_kernel(ChunkTables chunk, SeedTables tables) {
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  const int row = tile.first + static_cast<int>(threadIdx.x);
  if (row < shape.n) {
    const std::int64_t position = shape.begin + row;
    tables.closest[position] = chunk.counts(position) ? INFINITY : 0;
    tables.taken[position] = 0;
  }
  if (row != 0) return;
  GroupSeeding& seeding = tables.groups[tile.group];
  seeding.n_taken = 0;
  seeding.direct = seeding.slow = 0;
  seeding.winner = 0;
  seeding.gain[0] = 0;
  seeding.unit = 0;
}

template <class T>
__global__ void __launch_bounds__(kTileRows)
    end_step_kernel(Chunk<T> chunk, SeedTables tables, int step, bool chosen, bool listed) {
  __shared__ int shared[kTileRows / kWarp];
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  if (step > shape.k) return;
  GroupSeeding& seeding = tables.groups[tile.group];
  const std::int64_t row = tile.first + static_cast<int>(threadIdx.x);
  const int winner = seeding.winner;
  if (chosen && winner >= 0) {
    // The row is a slot of the list where there is one.
    const std::int64_t at = winner * chunk.n_rows + shape.begin + row;
    const std::int64_t n = listed ? seeding.n_open[winner] : shape.n;
    if (row < n) {
      double& closest = tables.closest[shape.begin + (listed ? tables.open[at] : row)];
      closest = fmin(closest, tables.distances[at]);
    }
  }
  const std::int64_t seed = shape.begin + tables.seeds[shape.first_cell + step - 1];
  const std::int64_t position = shape.begin + row;
  const bool equal =
      row < shape.n && chunk.hashes[position] == chunk.hashes[seed] &&
      tables.taken[position] == 0 && chunk.counts(position) &&
      (position == seed || rows_equal(chunk.row(position), chunk.row(seed), chunk.n_features));
  if (equal) tables.taken[position] = 1;
  const int n_equal = block_reduce(equal ? 1 : 0, Sum{}, shared);
  if (threadIdx.x == 0 && n_equal > 0) ddkern::cuda::atomic_add(&seeding.n_taken, n_equal);
}

// The mass that a row is drawn with.
struct UntakenMass {
  const ChunkTables& chunk;
  const SeedTables& tables;
  bool all_taken;

  __device__ UntakenMass(const ChunkTables& of, const SeedTables& with, int g)
      : chunk(of), tables(with), all_taken(with.groups[g].n_taken == of.shapes[g].n_positive) {}
  __device__ std::int64_t operator()(std::int64_t position) const {
    return all_taken || tables.taken[position] == 0 ? chunk.units_at(position) : 0;
  }
};
struct DistanceMass {
  const ChunkTables& chunk;
  const SeedTables& tables;
  int shift;
  double unit;

  __device__ DistanceMass(const ChunkTables& of, const SeedTables& with, int g)
      : chunk(of), tables(with), shift(of.shapes[g].grid_bits - grid_exponent(of.means[g].largest)),
        unit(power_of_two(shift)) {}
  __device__ std::int64_t operator()(std::int64_t position) const {
    return weighted_integer(tables.closest[position] * unit, chunk.weights, position);
  }
};

template <class Mass>
__global__ void __launch_bounds__(kTileRows)
    mass_kernel(ChunkTables chunk, SeedTables tables, int step) {
  __shared__ std::int64_t shared[kTileRows / kWarp];
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  if (step > shape.k) return;
  const Mass mass(chunk, tables, tile.group);
  const int row = tile.first + static_cast<int>(threadIdx.x);
  const std::int64_t mine = row < shape.n ? mass(shape.begin + row) : 0;
  const std::int64_t sum = block_reduce(mine, Sum{}, shared);
  if (threadIdx.x == 0) tables.tile_masses[blockIdx.x] = sum;
}

// By a warp: the row of a tile in which `rest`, counted from the tile's first row, falls.
template <class Mass>
__device__ void find_in_tile(const GroupShape& shape, std::int64_t tile, std::int64_t rest,
                             const Mass& mass, int* found) {
  constexpr int kRowsALane = kTileRows / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t first = tile * kTileRows + lane * kRowsALane;
  std::int64_t masses[kRowsALane], sum = 0;
#pragma unroll
  for (int r = 0; r < kRowsALane; ++r) {
    masses[r] = first + r < shape.n ? mass(shape.begin + first + r) : 0;
    sum += masses[r];
  }
  std::int64_t until = sum;
  for (int step = 1; step < kWarp; step *= 2) {
    const std::int64_t before = __shfl_up_sync(kAllLanes, until, step);
    if (lane >= step) until += before;
  }
  rest -= until - sum;
  if (rest < 0 || rest >= sum) return;  // another lane's
#pragma unroll
  for (int r = 0; r < kRowsALane; ++r) {
    if (rest >= 0 && rest < masses[r]) *found = static_cast<int>(first + r);
    rest -= masses[r];
  }
}

// Draws n rows of a group with probabilities mass(i) / total: found[t] for target u(t). All threads
// of the block call it; returns the total, and draws nothing if that is 0.
template <class Mass, class Uniform>
__device__ std::int64_t draw_rows(const SeedTables& tables, const GroupShape& shape, int n_draws,
                                  const Mass& mass, const Uniform& u, int* found) {
  __shared__ std::int64_t tiles[kMostTrials], rests[kMostTrials];
  const std::int64_t* sums = tables.tile_masses + shape.first_tile;
  const std::int64_t n_tiles = (shape.n + kTileRows - 1) / kTileRows;
  const std::int64_t total =
      draw_items(n_tiles, n_draws, [&](std::int64_t i) { return sums[i]; }, u, tiles, rests);
  if (total == 0) return 0;
  for (int t = static_cast<int>(threadIdx.x) / kWarp; t < n_draws; t += kDrawWarps) {
    find_in_tile(shape, tiles[t], rests[t], mass, &found[t]);
  }
  __syncthreads();
  return total;
}

__global__ void __launch_bounds__(kDrawThreads)
    draw_untaken_kernel(ChunkTables chunk, SeedTables tables, int step, unsigned restart) {
  __shared__ int found;
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  if (step >= shape.k) return;
  draw_rows(
      tables, shape, 1, UntakenMass(chunk, tables, g),
      [&](int) { return uniform(shape.seed, shape.id, static_cast<unsigned>(step), restart, 0); },
      &found);
  if (threadIdx.x != 0) return;
  tables.seeds[shape.first_cell + step] = found;
  tables.groups[g].candidate[0] = found;
}

__global__ void __launch_bounds__(kDrawThreads)
    draw_candidates_kernel(ChunkTables chunk, SeedTables tables, int step, unsigned restart) {
  __shared__ int found[kMostTrials];
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  if (step > shape.k) return;
  GroupSeeding& seeding = tables.groups[g];
  const int n_draws = step < shape.k ? shape.n_trials : 0;
  const DistanceMass mass(chunk, tables, g);
  const std::int64_t total = draw_rows(
      tables, shape, n_draws, mass,
      [&](int t) {
        return uniform(shape.seed, shape.id, static_cast<unsigned>(step), restart,
                       static_cast<unsigned>(t));
      },
      found);
  const int t = static_cast<int>(threadIdx.x);
  if (t < n_draws) {
    seeding.candidate[t] = total > 0 ? found[t] : 0;
    seeding.n_open[t] = 0;
    seeding.least_gain[t] = seeding.most_gain[t] = seeding.gain[t] = 0;
  }
  if (t != 0) return;
  seeding.total = total;
  seeding.shift = mass.shift;
  seeding.unit = mass.unit;
  // Zero: float32 says that every row coincides with a seed.
  seeding.slow = total == 0 || seeding.direct != 0;
  seeding.winner = -1;
  seeding.first_trial = 0;
  seeding.wanted = 0;
}

}  // namespace

void start_seeding(const ChunkTables& chunk, const SeedTables& tables, cudaStream_t stream) {
  DDKERN_LAUNCH(start_kernel, chunk.n_tiles, kTileRows, 0, stream, chunk, tables);
}

void draw_untaken(const ChunkTables& chunk, const SeedTables& tables, int step, unsigned restart,
                  cudaStream_t stream) {
  DDKERN_LAUNCH(mass_kernel<UntakenMass>, chunk.n_tiles, kTileRows, 0, stream, chunk, tables, step);
  DDKERN_LAUNCH(draw_untaken_kernel, chunk.n_groups, kDrawThreads, 0, stream, chunk, tables, step,
                restart);
}

template <class T>
void end_step(const Chunk<T>& chunk, const SeedTables& tables, int step, bool chosen, bool listed,
              cudaStream_t stream) {
  DDKERN_LAUNCH(end_step_kernel<T>, chunk.n_tiles, kTileRows, 0, stream, chunk, tables, step,
                chosen, listed);
}

void draw_candidates(const ChunkTables& chunk, const SeedTables& tables, int step, unsigned restart,
                     cudaStream_t stream) {
  find_largest(chunk, tables.closest, stream);
  DDKERN_LAUNCH(mass_kernel<DistanceMass>, chunk.n_tiles, kTileRows, 0, stream, chunk, tables,
                step);
  DDKERN_LAUNCH(draw_candidates_kernel, chunk.n_groups, kDrawThreads, 0, stream, chunk, tables,
                step, restart);
}

template void end_step(const Chunk<float>&, const SeedTables&, int, bool, bool, cudaStream_t);
template void end_step(const Chunk<double>&, const SeedTables&, int, bool, bool, cudaStream_t);

}  // namespace ddkern::kmeans::cuda
