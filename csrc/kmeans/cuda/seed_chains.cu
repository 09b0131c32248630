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
// Chains of a row at a time, without lists, as far as registers go.
template <class T>
constexpr int kTrialsAtOnce = 16 / sizeof(T);
constexpr int kChainBlocks = 6;  // that a multiprocessor has room for

// What is done with the chains of a row: the distance, and what it would gain.
template <class T, bool kStart>
__device__ void end_chain(const Chunk<T>& chunk, const SeedTables& tables, GroupSeeding& seeding,
                          std::int64_t begin, int trial, std::int64_t slot, std::int64_t position,
                          bool exists, float dot, float norm, float candidate_norm) {
  const double distance = fmax(0.0, (static_cast<double>(norm) - 2.0 * static_cast<double>(dot)) +
                                        static_cast<double>(candidate_norm));
  std::int64_t gain = 0;
  if (exists) {
    tables.distances[trial * chunk.n_rows + begin + slot] = distance;
    const double now = tables.closest[position];
    if (!kStart && now > 0) {
      gain = weighted_integer(now * seeding.unit, chunk.weights, position) -
             weighted_integer(fmin(now, distance) * seeding.unit, chunk.weights, position);
    }
  }
  if constexpr (!kStart) {
    gain = ddkern::cuda::warp_reduce(gain, Sum{});
    if (threadIdx.x % kWarp == 0 && gain != 0) {
      ddkern::cuda::atomic_add(&seeding.gain[trial], gain);
    }
  }
}

// d32 of rows to the candidates of a step, all rows and trials: a lane has a row, and rows come by
// way of shared memory, 32 features at a time. With kStart there is one candidate, and the rows'
// own chains are taken too.
template <class T, int kTrials, bool kStart>
__global__ void __launch_bounds__(kChainThreads)
    chain_kernel(Chunk<T> chunk, SeedTables tables, int step) {
  constexpr int kChainWarps = kChainThreads / kWarp;
  static_assert(kTileRows == kChainThreads);
  __shared__ float staged[kChainWarps][kWarp][kWarp + 1];
  __shared__ float candidates[kChainWarps][kTrials][kWarp];
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  GroupSeeding& seeding = tables.groups[tile.group];
  const int trial = static_cast<int>(blockIdx.y) * kTrials;
  const int n_trials = kStart ? 1 : shape.n_trials;
  if (step >= shape.k || seeding.slow != 0 || trial >= n_trials) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t first = tile.first + warp * kWarp;
  if (first >= shape.n) return;
  const bool exists = first + lane < shape.n;
  const std::int64_t slot = exists ? first + lane : first;
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
#pragma unroll
    for (int q = 0; q < kTrials; ++q) {
      candidates[warp][q][lane] =
          inside ? centred_f32(candidate_rows[q][column], m, factors, scale) : 0;
    }
    __syncwarp();
    // Past the last feature both are 0 and change nothing.
#pragma unroll
    for (int d = 0; d < kWarp; ++d) {
      const float y = staged[warp][lane][d];
#pragma unroll
      for (int q = 0; q < kTrials; ++q) dots[q] = __fmaf_rn(y, candidates[warp][q][d], dots[q]);
      if constexpr (kStart) {
        const float c = candidates[warp][0][d];
        norm = __fmaf_rn(y, y, norm);
        candidate_norm = __fmaf_rn(c, c, candidate_norm);
      }
    }
  }
  if constexpr (kStart) {
    if (exists) tables.chain_norms[position] = norm;
  } else {
    norm = tables.chain_norms[position];
  }
#pragma unroll
  for (int q = 0; q < kTrials; ++q) {
    if (trial + q >= n_trials) break;
    if constexpr (!kStart) {
      candidate_norm = tables.chain_norms[shape.begin + seeding.candidate[trial + q]];
    }
    end_chain<T, kStart>(chunk, tables, seeding, shape.begin, trial + q, slot, position, exists,
                         dots[q], norm, candidate_norm);
  }
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
    end_chain<T, false>(chunk, tables, seeding, shape.begin, item.trial, slot, position, exists,
                        dot, tables.chain_norms[position], tables.chain_norms[candidate]);
  }
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
  const dim3 by_trials(static_cast<unsigned>(chunk.n_tiles),
                       blocks_for(n_trials, kTrialsAtOnce<T>));
  DDKERN_LAUNCH((chain_kernel<T, kTrialsAtOnce<T>, false>), by_trials, kChainThreads, 0, stream,
                chunk, tables, step);
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
