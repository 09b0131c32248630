// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/seeding.h"

#include <algorithm>
#include <cmath>

#include "kmeans/cuda/arithmetic.cuh"
#include "kmeans/cuda/seed_chains.h"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::block_prefix;
using ddkern::cuda::block_reduce;
using ddkern::cuda::blocks_for;
using ddkern::cuda::Largest;
using ddkern::cuda::Least;
using ddkern::cuda::Sum;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// The rows that a thread has where a block goes through a group in order.
struct Segment {
  std::int64_t begin, end;
  __device__ explicit Segment(std::int64_t n) {
    const std::int64_t each = (n + kThreads - 1) / kThreads;
    begin = each * static_cast<int>(threadIdx.x);
    begin = begin < n ? begin : n;
    end = begin + each < n ? begin + each : n;
  }
};

// Draws n rows with probabilities mass(i) / total: found[t] for target u(t). All threads call it;
// returns the total. `prefix` has kWarps + 1 entries, `targets` and `found` kMostTrials.
template <class Mass, class Uniform>
__device__ std::int64_t draw_rows(std::int64_t n, int n_draws, const Mass& mass, const Uniform& u,
                                  std::int64_t* prefix, std::int64_t* targets, int* found) {
  const Segment mine(n);
  std::int64_t sum = 0;
  for (std::int64_t i = mine.begin; i < mine.end; ++i) sum += mass(i);
  const std::int64_t before = block_prefix(sum, prefix);
  const std::int64_t total = prefix[kWarps];
  if (total == 0) return 0;
  if (static_cast<int>(threadIdx.x) < n_draws) {
    targets[threadIdx.x] = draw_target(u(static_cast<int>(threadIdx.x)), total);
  }
  __syncthreads();
  for (int t = 0; t < n_draws; ++t) {
    std::int64_t rest = targets[t] - before;
    if (rest < 0 || rest >= sum) continue;
    std::int64_t i = mine.begin;
    for (std::int64_t m = mass(i); rest >= m; m = mass(i)) {
      rest -= m;
      ++i;
    }
    found[t] = static_cast<int>(i);
  }
  __syncthreads();
  return total;
}

// Rows that equal the seed are taken.
template <class T>
__device__ void take(const Chunk<T>& chunk, const SeedTables& tables, const GroupShape& shape,
                     GroupSeeding& seeding, std::int64_t seed, std::int64_t* shared) {
  const unsigned long long hash = chunk.hashes[shape.begin + seed];
  std::int64_t n = 0;
  for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
    const std::int64_t position = shape.begin + i;
    if (chunk.hashes[position] != hash || tables.taken[position] != 0 || !chunk.counts(position)) {
      continue;
    }
    if (i != seed &&
        !rows_equal(chunk.row(position), chunk.row(shape.begin + seed), chunk.n_features)) {
      continue;
    }
    tables.taken[position] = 1;
    ++n;
  }
  n = block_reduce(n, Sum{}, shared);
  if (threadIdx.x == 0) seeding.n_taken += n;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    start_kernel(Chunk<T> chunk, SeedTables tables, unsigned restart) {
  __shared__ std::int64_t prefix[kWarps + 1], targets[kMostTrials];
  __shared__ int found[kMostTrials];
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  GroupSeeding& seeding = tables.groups[g];
  for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
    const std::int64_t position = shape.begin + i;
    tables.closest[position] = chunk.counts(position) ? INFINITY : 0;
    tables.taken[position] = 0;
  }
  draw_rows(
      shape.n, 1, [&](std::int64_t i) { return chunk.units_at(shape.begin + i); },
      [&](int) { return uniform(shape.seed, shape.id, 0, restart, 0); }, prefix, targets, found);
  if (threadIdx.x != 0) return;
  seeding.n_taken = 0;
  seeding.direct = seeding.slow = 0;
  seeding.winner = 0;
  seeding.candidate[0] = found[0];
  seeding.gain[0] = 0;
  seeding.unit = 0;
  tables.seeds[shape.first_cell] = found[0];
}

// The grid of the masses follows from the largest distance; then their total and the trials.
template <class T>
__device__ std::int64_t weigh_and_draw(const Chunk<T>& chunk, const SeedTables& tables,
                                       const GroupShape& shape, GroupSeeding& seeding,
                                       unsigned step, unsigned restart, int n_draws, double* shared,
                                       std::int64_t* prefix, std::int64_t* targets, int* found) {
  double largest = 0;
  for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
    largest = fmax(largest, tables.closest[shape.begin + i]);
  }
  largest = block_reduce(largest, Largest{}, shared);
  const int shift = shape.grid_bits - grid_exponent(largest);
  const double unit = power_of_two(shift);
  const std::int64_t total = draw_rows(
      shape.n, n_draws,
      [&](std::int64_t i) {
        const std::int64_t position = shape.begin + i;
        return weighted_integer(tables.closest[position] * unit, chunk.weights, position);
      },
      [&](int t) { return uniform(shape.seed, shape.id, step, restart, static_cast<unsigned>(t)); },
      prefix, targets, found);
  if (threadIdx.x == 0) {
    seeding.total = total;
    seeding.shift = shift;
    seeding.unit = unit;
  }
  return total;
}

// Ends step - 1 and draws the candidates of `step`; with step = k only the potential is found.
template <class T>
__global__ void __launch_bounds__(kThreads)
    advance_kernel(Chunk<T> chunk, SeedTables tables, int step, unsigned restart, bool start) {
  __shared__ std::int64_t prefix[kWarps + 1], targets[kMostTrials];
  __shared__ double shared[kWarps];
  __shared__ int found[kMostTrials];
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  if (step > shape.k) return;
  GroupSeeding& seeding = tables.groups[g];
  const int winner = seeding.winner;
  if (winner >= 0) {
    const std::int64_t at = winner * chunk.n_rows + shape.begin;
    const bool lists = tables.open != nullptr && !start;
    const std::int64_t n = lists ? seeding.n_open[winner] : shape.n;
    for (std::int64_t slot = threadIdx.x; slot < n; slot += kThreads) {
      const std::int64_t position = shape.begin + (lists ? tables.open[at + slot] : slot);
      tables.closest[position] = fmin(tables.closest[position], tables.distances[at + slot]);
    }
    __syncthreads();
  }
  take(chunk, tables, shape, seeding, tables.seeds[shape.first_cell + step - 1], prefix);
  __syncthreads();
  const int n_draws = step < shape.k ? shape.n_trials : 0;
  const std::int64_t total =
      weigh_and_draw(chunk, tables, shape, seeding, static_cast<unsigned>(step), restart, n_draws,
                     shared, prefix, targets, found);
  const int t = static_cast<int>(threadIdx.x);
  if (t < n_draws) {
    seeding.candidate[t] = total > 0 ? found[t] : 0;
    seeding.n_open[t] = 0;
    seeding.least_gain[t] = seeding.most_gain[t] = seeding.gain[t] = 0;
  }
  if (t != 0) return;
  // Zero: float32 says that every row coincides with a seed.
  seeding.slow = total == 0 || seeding.direct != 0;
  seeding.winner = -1;
  seeding.first_trial = 0;
  seeding.wanted = 0;
}

// Bounds of d32 from the Gram matrix, for a row a thread and all trials of the step; rows that
// cannot come nearer are left as they are.
template <class T>
__global__ void __launch_bounds__(kTileRows)
    screen_kernel(Chunk<T> chunk, SeedTables tables, int step, double product_error) {
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
template <class T>
__global__ void pick_first_kernel(Chunk<T> chunk, SeedTables tables, int step) {
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

template <class T>
__global__ void pick_rest_kernel(Chunk<T> chunk, SeedTables tables, int step) {
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
template <class T>
__global__ void choose_kernel(Chunk<T> chunk, SeedTables tables, int step, bool lists) {
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
  __shared__ std::int64_t prefix[kWarps + 1], targets[kMostTrials];
  __shared__ double shared[kWarps];
  __shared__ int found[kMostTrials];
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  GroupSeeding& seeding = tables.groups[g];
  if (step >= shape.k || seeding.slow == 0) return;
  std::int32_t* seeds = tables.seeds + shape.first_cell;
  if (seeding.n_taken == shape.n_positive) {
    draw_rows(
        shape.n, 1, [&](std::int64_t i) { return chunk.units_at(shape.begin + i); },
        [&](int) { return uniform(shape.seed, shape.id, static_cast<unsigned>(step), restart, 0); },
        prefix, targets, found);
    if (threadIdx.x == 0) seeds[step] = found[0];
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
                           shape.n_trials, shared, prefix, targets, found);
    __syncthreads();
  }
  if (total == 0) {
    std::int64_t first = shape.n;
    for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
      const std::int64_t position = shape.begin + i;
      if (chunk.counts(position) && tables.taken[position] == 0 && i < first) first = i;
    }
    first = block_reduce(first, Least{}, prefix);
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
    const int candidate = was_direct ? seeding.candidate[t] : found[t];
    double* nearer = tables.distances + t * chunk.n_rows;
    nearer_directly(chunk, tables, g, candidate, nearer);
    std::int64_t potential = 0;
    for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
      const std::int64_t position = shape.begin + i;
      if (!chunk.counts(position)) continue;
      potential += weighted_integer(nearer[position] * unit, chunk.weights, position);
    }
    potential = block_reduce(potential, Sum{}, prefix);
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
    seeds[step] = was_direct ? seeding.candidate[best] : found[best];
    seeding.direct = 1;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    random_kernel(Chunk<T> chunk, SeedTables tables, unsigned restart) {
  __shared__ std::int64_t prefix[kWarps + 1], targets[kMostTrials];
  __shared__ int found[kMostTrials];
  const int g = static_cast<int>(blockIdx.x);
  const GroupShape& shape = chunk.shapes[g];
  GroupSeeding& seeding = tables.groups[g];
  for (std::int64_t i = threadIdx.x; i < shape.n; i += kThreads) {
    tables.taken[shape.begin + i] = 0;
  }
  if (threadIdx.x == 0) seeding.n_taken = 0;
  __syncthreads();
  for (int step = 0; step < shape.k; ++step) {
    const auto draw = [&](int) {
      return uniform(shape.seed, shape.id, static_cast<unsigned>(step), restart, 0);
    };
    const std::int64_t left = draw_rows(
        shape.n, 1,
        [&](std::int64_t i) {
          const std::int64_t position = shape.begin + i;
          return tables.taken[position] != 0 ? 0 : chunk.units_at(position);
        },
        draw, prefix, targets, found);
    if (left == 0) {
      __syncthreads();
      draw_rows(
          shape.n, 1, [&](std::int64_t i) { return chunk.units_at(shape.begin + i); }, draw, prefix,
          targets, found);
    }
    const int seed = found[0];
    if (threadIdx.x == 0) tables.seeds[shape.first_cell + step] = seed;
    take(chunk, tables, shape, seeding, seed, prefix);
    __syncthreads();
  }
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
                    unsigned restart, double product_error, cudaStream_t stream) {
  const bool lists = tables.open != nullptr;
  const int most_trials = n_trials_for(most_k);
  const unsigned n_groups = static_cast<unsigned>(chunk.n_groups);
  const unsigned n_tiles = static_cast<unsigned>(chunk.n_tiles);
  const unsigned group_blocks = blocks_for(chunk.n_groups, kWarp);
  DDKERN_LAUNCH(start_kernel<T>, n_groups, kThreads, 0, stream, chunk, tables, restart);
  take_first_chains(chunk, tables, stream);
  for (std::int64_t k = 1; k <= most_k; ++k) {
    const int step = static_cast<int>(k);
    DDKERN_LAUNCH(advance_kernel<T>, n_groups, kThreads, 0, stream, chunk, tables, step, restart,
                  step == 1);
    if (k == most_k) break;
    DDKERN_LAUNCH(slow_kernel<T>, n_groups, kThreads, 0, stream, chunk, tables, step, restart);
    if (lists) {
      DDKERN_CUDA_TRY(cudaMemsetAsync(tables.n_items, 0, 2 * sizeof(int), stream));
      DDKERN_LAUNCH(screen_kernel<T>, n_tiles, kTileRows, 0, stream, chunk, tables, step,
                    product_error);
      DDKERN_LAUNCH(pick_first_kernel<T>, group_blocks, kWarp, 0, stream, chunk, tables, step);
      take_listed_chains(chunk, tables, 0, stream);
      DDKERN_LAUNCH(pick_rest_kernel<T>, group_blocks, kWarp, 0, stream, chunk, tables, step);
      take_listed_chains(chunk, tables, 1, stream);
    } else {
      take_all_chains(chunk, tables, step, most_trials, stream);
    }
    DDKERN_LAUNCH(choose_kernel<T>, group_blocks, kWarp, 0, stream, chunk, tables, step, lists);
  }
}

template <class T>
void seed_random(const Chunk<T>& chunk, const SeedTables& tables, unsigned restart,
                 cudaStream_t stream) {
  DDKERN_LAUNCH(random_kernel<T>, chunk.n_groups, kThreads, 0, stream, chunk, tables, restart);
}

template <class T>
void copy_seeds(const Chunk<T>& chunk, const std::int32_t* seeds, cudaStream_t stream) {
  const dim3 grid(64, static_cast<unsigned>(chunk.n_groups));
  DDKERN_LAUNCH(copy_seeds_kernel<T>, grid, kThreads, 0, stream, chunk, seeds);
}

#define DDKERN_INSTANTIATE(T)                                                                      \
  template void seed_plus_plus(const Chunk<T>&, const SeedTables&, std::int64_t, unsigned, double, \
                               cudaStream_t);                                                      \
  template void seed_random(const Chunk<T>&, const SeedTables&, unsigned, cudaStream_t);           \
  template void copy_seeds(const Chunk<T>&, const std::int32_t*, cudaStream_t)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(double);

}  // namespace ddkern::kmeans::cuda
