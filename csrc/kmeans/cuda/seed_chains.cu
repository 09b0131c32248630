// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/seed_chains.h"

#include <type_traits>

#include "core/cuda/mma.cuh"
#include "kmeans/cuda/arithmetic.cuh"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::blocks_for;
using ddkern::cuda::Sum;

constexpr int kChainThreads = 128;
constexpr int kChainWarps = kChainThreads / kWarp;
constexpr int kChainBlocks = 6;  // that a multiprocessor has room for

// d32 of a row to a candidate.
inline __device__ double chain_distance(float dot, float norm, float candidate_norm) {
  return fmax(0.0, (static_cast<double>(norm) - 2.0 * static_cast<double>(dot)) +
                       static_cast<double>(candidate_norm));
}

// By how much a candidate at this distance would lower the potential.
__device__ std::int64_t gain_of(const ChunkTables& chunk, const SeedTables& tables, double unit,
                                std::int64_t position, double distance) {
  const double now = tables.closest[position];
  if (!(now > 0)) return 0;
  return weighted_integer(now * unit, chunk.weights, position) -
         weighted_integer(fmin(now, distance) * unit, chunk.weights, position);
}

// Values in shared memory, four at a time where there are as many.
template <int kValues>
__device__ void put_side_by_side(float* to, const float (&values)[kValues]) {
  if constexpr (kValues % 4 == 0) {
    store_aligned(to, values);
  } else {
    for (int v = 0; v < kValues; ++v) to[v] = values[v];
  }
}
template <int kValues>
__device__ void get_side_by_side(const float* from, float (&values)[kValues]) {
  if constexpr (kValues % 4 == 0) {
    load_aligned(from, values);
  } else {
    for (int v = 0; v < kValues; ++v) values[v] = from[v];
  }
}

// d32 of rows to the candidates of a step, all rows and trials: a lane has a row, and rows come by
// way of shared memory, 32 features at a time, once for kTrials candidates. With kStart there is
// one candidate, and the rows' own chains are taken too.
template <class T, int kTrials, bool kStart>
__global__ void __launch_bounds__(kChainThreads)
    chain_kernel(Chunk<T> chunk, SeedTables tables, int step) {
  static_assert(kTileRows == kChainThreads);
  __shared__ float staged[kChainWarps][kWarp][kWarp + 1];
  // The candidates' values of one feature lie side by side, and four of them are one load.
  alignas(16) __shared__ float candidates[kChainWarps][kWarp][kTrials];
  __shared__ std::int64_t gains[kChainWarps][kTrials];
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  GroupSeeding& seeding = tables.groups[tile.group];
  const int trial = static_cast<int>(blockIdx.y) * kTrials;
  const int n_trials = kStart ? 1 : shape.n_trials;
  if (step >= shape.k || seeding.slow != 0 || trial >= n_trials) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t row = tile.first + static_cast<int>(threadIdx.x);
  const bool exists = row < shape.n;
  const std::int64_t slot = exists ? row : tile.first;
  const std::int64_t position = shape.begin + slot;
  const std::int64_t offset = chunk.row_number(position) * chunk.stride;
  const GroupFrame& frame = chunk.frames[tile.group];
  const Factors factors = factors_of(-frame.exponent);
  const double scale = frame.scale;
  const T* centre = chunk.centre + static_cast<std::int64_t>(tile.group) * chunk.n_features;
  const T* candidate_rows[kTrials];
#pragma unroll
  for (int q = 0; q < kTrials; ++q) {
    const int t = trial + q < n_trials ? trial + q : trial;
    candidate_rows[q] = chunk.row(shape.begin + seeding.candidate[t]);
  }
  float dots[kTrials] = {}, norm = 0, candidate_norm = 0;
  for (int feature = 0; feature < chunk.n_features; feature += kWarp) {
    const int j = feature + lane;
    const bool inside = j < chunk.n_features;
    const int column = inside ? j : 0;
    const T m = centre[column];
    __syncwarp();
    constexpr int kLoads = 64 / sizeof(T);  // under way at a time
#pragma unroll
    for (int some = 0; some < kWarp; some += kLoads) {
      T values[kLoads];
#pragma unroll
      for (int r = 0; r < kLoads; ++r) {
        values[r] = chunk.x[__shfl_sync(kAllLanes, offset, some + r) + column];
      }
#pragma unroll
      for (int r = 0; r < kLoads; ++r) {
        staged[warp][some + r][lane] = inside ? centred_f32(values[r], m, factors, scale) : 0;
      }
    }
    float mine[kTrials];
#pragma unroll
    for (int q = 0; q < kTrials; ++q) {
      mine[q] = inside ? centred_f32(candidate_rows[q][column], m, factors, scale) : 0;
    }
    put_side_by_side(candidates[warp][lane], mine);
    __syncwarp();
    // Past the last feature both are 0 and change nothing.
#pragma unroll
    for (int d = 0; d < kWarp; ++d) {
      const float y = staged[warp][lane][d];
      float c[kTrials];
      get_side_by_side(candidates[warp][d], c);
#pragma unroll
      for (int q = 0; q < kTrials; ++q) dots[q] = __fmaf_rn(y, c[q], dots[q]);
      if constexpr (kStart) {
        norm = __fmaf_rn(y, y, norm);
        candidate_norm = __fmaf_rn(c[0], c[0], candidate_norm);
      }
    }
  }
  if constexpr (kStart) {
    if (!exists) return;
    tables.chain_norms[position] = norm;
    tables.distances[position] = chain_distance(dots[0], norm, candidate_norm);
    return;
  }
  norm = tables.chain_norms[position];
#pragma unroll
  for (int q = 0; q < kTrials; ++q) {
    std::int64_t gain = 0;
    if (exists && trial + q < n_trials) {
      candidate_norm = tables.chain_norms[shape.begin + seeding.candidate[trial + q]];
      const double distance = chain_distance(dots[q], norm, candidate_norm);
      tables.distances[(trial + q) * chunk.n_rows + position] = distance;
      gain = gain_of(chunk, tables, seeding.unit, position, distance);
    }
    gain = ddkern::cuda::warp_reduce(gain, Sum{});
    if (lane == 0) gains[warp][q] = gain;
  }
  __syncthreads();
  const int q = static_cast<int>(threadIdx.x);
  if (q >= kTrials || trial + q >= n_trials) return;
  std::int64_t gain = 0;
  for (int w = 0; w < kChainWarps; ++w) gain += gains[w][q];
  if (gain != 0) ddkern::cuda::atomic_add(&seeding.gain[trial + q], gain);
}

// Chains of a few rows here and there, which latency would dominate: one warp a block, and rows are
// on their way several stages ahead.
template <class T>
struct ChainStage {
  static constexpr int kDepth = 256 / sizeof(T);          // features
  static constexpr int kPitch = kDepth + 16 / sizeof(T);  // apart by an odd number of 16 bytes
  T rows[kWarp][kPitch];
  T candidate[kDepth], centre[kDepth];
};
constexpr int kChainStages = 4;

template <class T, bool kAligned>
__device__ void stage_values(T* to, const T* from, bool valid) {
  if constexpr (kAligned) {
    ddkern::cuda::copy_async_16(to, from, valid);
  } else {
    constexpr int kValues = 16 / sizeof(T);
#pragma unroll
    for (int v = 0; v < kValues; ++v) to[v] = valid ? from[v] : T{0};
  }
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(kWarp)
    chain_list_kernel(Chunk<T> chunk, SeedTables tables, int round) {
  using Stage = ChainStage<T>;
  constexpr int kDepth = Stage::kDepth, kValues = 16 / sizeof(T), kCopies = kDepth / kValues;
  static_assert(kCopies == kWarp / 2);
  DDKERN_DYNAMIC_SHARED(Stage, stages);
  const int lane = static_cast<int>(threadIdx.x);
  const int n_items = tables.n_items[round];
  const ChainItem* items = tables.items + round * most_chain_items(chunk.n_rows, chunk.n_groups, 1);
  for (int i = static_cast<int>(blockIdx.x); i < n_items; i += static_cast<int>(gridDim.x)) {
    const ChainItem item = items[i];
    const GroupShape& shape = chunk.shapes[item.group];
    GroupSeeding& seeding = tables.groups[item.group];
    const int n_slots = seeding.n_open[item.trial] - item.first_slot;
    const bool exists = lane < n_slots;
    const std::int64_t slot = item.first_slot + (exists ? lane : 0);
    const std::int64_t row = tables.open[item.trial * chunk.n_rows + shape.begin + slot];
    const std::int64_t position = shape.begin + row;
    const std::int64_t offset = chunk.row_number(position) * chunk.stride;
    const std::int64_t candidate = shape.begin + seeding.candidate[item.trial];
    const GroupFrame& frame = chunk.frames[item.group];
    const Factors factors = factors_of(-frame.exponent);
    const double scale = frame.scale;
    // Lanes 0 to 15 bring the candidate, the others the centre.
    const T* beside = lane < kCopies
                          ? chunk.row(candidate)
                          : chunk.centre + static_cast<std::int64_t>(item.group) * chunk.n_features;
    const int copy = lane % kCopies;
    const auto load = [&](int stage, int feature) {
      Stage& to = stages[stage];
      const int j = feature + copy * kValues;
      // Without alignment the last values may lie past the row: they are brought one by one.
      const bool inside = kAligned ? j < chunk.n_features : j + kValues <= chunk.n_features;
#pragma unroll 4
      for (int r = 0; r < kWarp; r += 2) {
        const int mine = r + lane / kCopies;
        const T* from = chunk.x + __shfl_sync(kAllLanes, offset, mine) + (inside ? j : 0);
        stage_values<T, kAligned>(&to.rows[mine][copy * kValues], from, inside && mine < n_slots);
        if (!kAligned && !inside && mine < n_slots) {
          for (int v = 0; j + v < chunk.n_features; ++v)
            to.rows[mine][copy * kValues + v] = from[j + v];
        }
      }
      T* const to_beside = (lane < kCopies ? to.candidate : to.centre) + copy * kValues;
      stage_values<T, kAligned>(to_beside, beside + (inside ? j : 0), inside);
      if (!kAligned && !inside) {
        for (int v = 0; j + v < chunk.n_features; ++v) to_beside[v] = beside[j + v];
      }
    };
    float dot = 0;
    const int n_steps = (chunk.n_features + kDepth - 1) / kDepth;
    __syncwarp();  // the last item is done with the stages
#pragma unroll
    for (int s = 0; s < kChainStages - 1; ++s) {
      if (s < n_steps) load(s, s * kDepth);
      ddkern::cuda::copy_async_commit();
    }
    for (int s = 0; s < n_steps; ++s) {
      ddkern::cuda::copy_async_wait<kChainStages - 2>();
      __syncwarp();
      if (s + kChainStages - 1 < n_steps) {
        load((s + kChainStages - 1) % kChainStages, (s + kChainStages - 1) * kDepth);
      }
      ddkern::cuda::copy_async_commit();
      const Stage& stage = stages[s % kChainStages];
      // Past the last feature all are 0 and change nothing.
#pragma unroll
      for (int d = 0; d < kDepth; d += kValues) {
        T x[kValues], c[kValues], m[kValues];
        load_aligned(&stage.rows[lane][d], x);
        load_aligned(&stage.candidate[d], c);
        load_aligned(&stage.centre[d], m);
#pragma unroll
        for (int v = 0; v < kValues; ++v) {
          dot = __fmaf_rn(centred_f32(x[v], m[v], factors, scale),
                          centred_f32(c[v], m[v], factors, scale), dot);
        }
      }
    }
    std::int64_t gain = 0;
    if (exists) {
      const double distance =
          chain_distance(dot, tables.chain_norms[position], tables.chain_norms[candidate]);
      tables.distances[item.trial * chunk.n_rows + shape.begin + slot] = distance;
      gain = gain_of(chunk, tables, seeding.unit, position, distance);
    }
    gain = ddkern::cuda::warp_reduce(gain, Sum{});
    if (lane == 0 && gain != 0) ddkern::cuda::atomic_add(&seeding.gain[item.trial], gain);
  }
}

template <class T, int kTrials>
void launch_chains(const Chunk<T>& chunk, const SeedTables& tables, int step, int n_trials,
                   cudaStream_t stream) {
  const dim3 by_trials(static_cast<unsigned>(chunk.n_tiles), blocks_for(n_trials, kTrials));
  DDKERN_LAUNCH((chain_kernel<T, kTrials, false>), by_trials, kChainThreads, 0, stream, chunk,
                tables, step);
}

}  // namespace

template <class T>
void take_first_chains(const Chunk<T>& chunk, const SeedTables& tables, cudaStream_t stream) {
  DDKERN_LAUNCH((chain_kernel<T, 1, true>), chunk.n_tiles, kChainThreads, 0, stream, chunk, tables,
                0);
}

template <class T>
void take_all_chains(const Chunk<T>& chunk, const SeedTables& tables, int step, int n_trials,
                     cudaStream_t stream) {
  // Reading rows takes longer than their chains, so it is done once for nearly every k.
  constexpr int kFew = 4, kMany = sizeof(T) == sizeof(float) ? 12 : 8;
  if (n_trials <= kFew) return launch_chains<T, kFew>(chunk, tables, step, n_trials, stream);
  launch_chains<T, kMany>(chunk, tables, step, n_trials, stream);
}

template <class T>
void take_listed_chains(const Chunk<T>& chunk, const SeedTables& tables, int round,
                        cudaStream_t stream) {
  // How many items there are is known on the device alone.
  const auto blocks = static_cast<unsigned>(tables.n_multiprocessors * kChainBlocks);
  constexpr std::size_t kBytes = kChainStages * sizeof(ChainStage<T>);
  if constexpr (std::is_same_v<T, float>) {
    if (rows_are_aligned(chunk)) {
      DDKERN_LAUNCH((chain_list_kernel<T, true>), blocks, kWarp, kBytes, stream, chunk, tables,
                    round);
      return;
    }
  }
  DDKERN_LAUNCH((chain_list_kernel<T, false>), blocks, kWarp, kBytes, stream, chunk, tables, round);
}

#define DDKERN_INSTANTIATE(T)                                                                \
  template void take_first_chains(const Chunk<T>&, const SeedTables&, cudaStream_t);         \
  template void take_all_chains(const Chunk<T>&, const SeedTables&, int, int, cudaStream_t); \
  template void take_listed_chains(const Chunk<T>&, const SeedTables&, int, cudaStream_t)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(double);

}  // namespace ddkern::kmeans::cuda
