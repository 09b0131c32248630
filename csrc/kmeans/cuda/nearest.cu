// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/nearest.h"

#include <algorithm>

#include "kmeans/cuda/comparison.cuh"
#include "kmeans/cuda/nearest.cuh"

namespace ddkern::kmeans::cuda {
namespace {

constexpr int kSettleThreads = 128;

// kSlices threads a row: each goes through every kSlices-th column, and the first joins what they
// found.
template <int kSlices>
__global__ void __launch_bounds__(kTileRows* kSlices)
    scan_kernel(ChunkTables chunk, int first_tile) {
  constexpr int kKept = kListed + 1;
  constexpr int kShared = kSlices == 1 ? 1 : kTileRows;
  __shared__ float limits[kSlices][kShared], least[kSlices][kKept][kShared];
  __shared__ int columns[kSlices][kKept - 1][kShared];
  const RowTile tile = chunk.tiles[first_tile + static_cast<int>(blockIdx.x)];
  GroupRun& run = chunk.runs[tile.group];
  if (run.active == 0) return;
  const GroupShape& shape = chunk.shapes[tile.group];
  const int place = static_cast<int>(threadIdx.x) % kTileRows;
  const int slice = static_cast<int>(threadIdx.x) / kTileRows;
  const int row = tile.first + place;
  const std::int64_t position = shape.begin + row;
  const float row_norm = row < shape.n ? chunk.norms[position] : 0;
  const bool wild = is_wild(row_norm);
  LeastScores<kKept> found;
  if (row < shape.n && !wild) {
    const float row_lost = chunk.lost[position];
    const CellBound* bounds = chunk.bounds + shape.first_cell;
    const float* products = chunk.scores + tile.scores + place;
    for (int c = slice; c < shape.k; c += kSlices) {
      const CellBound bound = bounds[c];
      found.add(c, score_of(bound, products[static_cast<std::int64_t>(c) * kTileRows]),
                error_of(bound, row_lost, row_norm));
    }
  }
  if constexpr (kSlices > 1) {
    limits[slice][place] = found.limit;
#pragma unroll
    for (int s = 0; s < kKept; ++s) least[slice][s][place] = found.least[s];
#pragma unroll
    for (int s = 0; s < kKept - 1; ++s) columns[slice][s][place] = found.column[s];
    __syncthreads();
    for (int other = 1; other < kSlices && slice == 0; ++other) {
      float other_least[kKept];
      int other_column[kKept - 1];
#pragma unroll
      for (int s = 0; s < kKept; ++s) other_least[s] = least[other][s][place];
#pragma unroll
      for (int s = 0; s < kKept - 1; ++s) other_column[s] = columns[other][s][place];
      found.join(limits[other][place], other_least, other_column);
    }
  }
  const bool decides = slice == 0 && row < shape.n;
  const bool open = decides && (wild || found.open());
  if (decides) decide(chunk, tile.group, position, tile.scores + place, wild, found);
  const int n_open = __syncthreads_count(open);
  if (threadIdx.x == 0 && n_open > 0) {
    ddkern::cuda::atomic_add(&run.n_rechecked, static_cast<std::int64_t>(n_open));
  }
}

// --- open rows ---------------------------------------------------------------------------------

// The nearest so far of the columns that one row may belong to.
template <class T>
struct Contest {
  Comparison<T> comparison;
  int best = -1;
  double best_distance = 0;

  // Columns that are not negative, as the first is not; in ascending order, so that an exact tie
  // keeps the lowest.
  template <int kCells>
  __device__ void enter(const int (&columns)[kCells]) {
    double distances[kCells];
    comparison.distances(columns, distances);
#pragma unroll
    for (int c = 0; c < kCells; ++c) {
      if (columns[c] < 0) continue;
      if (best >= 0 && !comparison.nearer(columns[c], distances[c], best, best_distance)) continue;
      best = columns[c];
      best_distance = distances[c];
    }
  }
};

// A warp a row. Without limbs, rows that float64 cannot settle go on to chunk.ties.
template <class T, bool kExact>
__global__ void __launch_bounds__(kExact ? kWarp : kSettleThreads, kExact ? 1 : 5)
    settle_kernel(Chunk<T> chunk) {
  DDKERN_DYNAMIC_SHARED(std::int64_t, limbs);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int n_warps = static_cast<int>(gridDim.x * blockDim.x) / kWarp;
  const OpenRow* rows = kExact ? chunk.ties : chunk.open;
  const int n_rows = kExact ? *chunk.n_ties : *chunk.n_open;
  for (int e = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) / kWarp; e < n_rows;
       e += n_warps) {
    const OpenRow entry = rows[e];
    Contest<T> contest{Comparison<T>(chunk, entry.group, entry.position, kExact ? limbs : nullptr)};
    if (entry.n_columns > 0) {
#pragma unroll
      for (int c = 0; c < kListed; ++c) {
        const int column[1] = {entry.columns[c]};
        if (c < entry.n_columns) contest.enter(column);
      }
    } else {
      constexpr int kAtOnce = kExact ? 1 : 4;  // real arithmetic is long enough once
      visit_candidates<kAtOnce>(chunk, entry, [&](const int (&columns)[kAtOnce]) {
        contest.enter(columns);
        return true;
      });
    }
    if (lane != 0) continue;
    if (contest.comparison.unclear) {
      if constexpr (kExact) {
        ddkern::cuda::atomic_add(&chunk.runs[entry.group].n_exact, 1);
      } else {
        chunk.ties[atomicAdd(chunk.n_ties, 1)] = entry;
        continue;
      }
    }
    chunk.assignment[entry.position] = contest.best;
  }
}

__global__ void __launch_bounds__(kTileRows)
    write_assignment_kernel(ChunkTables chunk, std::int64_t* assignment) {
  const std::int64_t position =
      static_cast<std::int64_t>(blockIdx.x) * kTileRows + static_cast<int>(threadIdx.x);
  if (position < chunk.n_rows) {
    assignment[chunk.row_number(position)] = chunk.assignment[position];
  }
}

// Sixteen threads a pair of row and centroid. Where squares leave the range of float64 the
// difference is brought near 1 first.
template <class T>
__global__ void __launch_bounds__(kTileRows)
    write_distances_kernel(Chunk<T> chunk, int n_nearest, const std::int64_t* assignment,
                           double* distance) {
  constexpr int kPairs = kTileRows / kLanes;  // of a block at once
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int n = chunk.n_features;
  const std::int64_t left = shape.n - tile.first;
  const std::int64_t n_pairs = (left < kTileRows ? left : kTileRows) * n_nearest;
  const std::int64_t step = std::int64_t{gridDim.y} * kPairs;
  for (std::int64_t first = std::int64_t{blockIdx.y} * kPairs; first < n_pairs; first += step) {
    const std::int64_t mine = first + static_cast<int>(threadIdx.x) / kLanes;
    const std::int64_t pair = mine < n_pairs ? mine : first;
    const std::int64_t row = chunk.row_number(shape.begin + tile.first + pair / n_nearest);
    const std::int64_t at = row * n_nearest + pair % n_nearest;
    const T* x = chunk.x + row * chunk.stride;
    const T* c = chunk.centroids + (shape.first_cell + assignment[at]) * n;
    const double squared = sq_distance(x, c, 1.0, n, lane);
    double largest = 0;
    for (int j = lane; j < n; j += kLanes) {
      largest = fmax(largest, fabs(static_cast<double>(x[j]) - static_cast<double>(c[j])));
    }
    for (int half = kLanes / 2; half > 0; half /= 2) {
      largest = fmax(largest, __shfl_xor_sync(kAllLanes, largest, half));
    }
    const int exponent = exponent_of(largest);
    double sum = 0;
    for (int j = lane; j < n; j += kLanes) {
      const double d = ldexp(static_cast<double>(x[j]) - static_cast<double>(c[j]), -exponent);
      sum += d * d;
    }
    sum = add_lanes(sum);
    if (mine >= n_pairs || lane != 0) continue;
    const bool in_range = squared >= kSmallestCertain && squared <= 1 / kSmallestCertain;
    distance[at] = in_range ? sqrt(squared) : largest == 0 ? 0 : ldexp(sqrt(sum), exponent);
  }
}

}  // namespace

void write_assignment(const ChunkTables& chunk, std::int64_t* assignment, cudaStream_t stream) {
  DDKERN_LAUNCH(write_assignment_kernel, ddkern::cuda::blocks_for(chunk.n_rows, kTileRows),
                kTileRows, 0, stream, chunk, assignment);
}

template <class T>
void write_distances(const Chunk<T>& chunk, int n_nearest, const std::int64_t* assignment,
                     double* distance, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(chunk.n_tiles),
                  static_cast<unsigned>(std::min(n_nearest, 256)));
  DDKERN_LAUNCH(write_distances_kernel<T>, grid, kTileRows, 0, stream, chunk, n_nearest, assignment,
                distance);
}

void forget_open_rows(const ChunkTables& chunk, cudaStream_t stream) {
  DDKERN_CUDA_TRY(cudaMemsetAsync(chunk.n_open, 0, sizeof(int), stream));
  DDKERN_CUDA_TRY(cudaMemsetAsync(chunk.n_ties, 0, sizeof(int), stream));
}

void scan_scores(const ChunkTables& chunk, int first_tile, int n_tiles, cudaStream_t stream) {
  // Many columns and few tiles would leave most of the device idle.
  constexpr int kManyColumns = 256, kSlices = 4;
  if (chunk.most_k > kManyColumns) {
    DDKERN_LAUNCH(scan_kernel<kSlices>, n_tiles, kTileRows * kSlices, 0, stream, chunk, first_tile);
  } else {
    DDKERN_LAUNCH(scan_kernel<1>, n_tiles, kTileRows, 0, stream, chunk, first_tile);
  }
}

template <class T>
void settle_open_rows(const Chunk<T>& chunk, std::int64_t most_rows, int n_multiprocessors,
                      cudaStream_t stream) {
  // How many rows are open is known on the device alone: enough warps to fill it, and a loop.
  constexpr int kRowsABlock = kSettleThreads / kWarp;
  const std::int64_t most = (most_rows + kRowsABlock - 1) / kRowsABlock;
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>(most, n_multiprocessors * 16));
  DDKERN_LAUNCH((settle_kernel<T, false>), blocks, kSettleThreads, 0, stream, chunk);
  const auto exact = static_cast<unsigned>(std::min<std::int64_t>(most, n_multiprocessors * 4));
  DDKERN_LAUNCH((settle_kernel<T, true>), exact, kWarp, kLimbBytes, stream, chunk);
}

#define DDKERN_INSTANTIATE(T)                                                       \
  template void settle_open_rows(const Chunk<T>&, std::int64_t, int, cudaStream_t); \
  template void write_distances(const Chunk<T>&, int, const std::int64_t*, double*, cudaStream_t)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(double);

}  // namespace ddkern::kmeans::cuda
