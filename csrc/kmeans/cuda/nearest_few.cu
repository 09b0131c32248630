// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/nearest_few.h"

#include <algorithm>

#include "kmeans/cuda/comparison.cuh"
#include "kmeans/cuda/nearest.cuh"
#include "kmeans/cuda/nearest.h"

namespace ddkern::kmeans::cuda {
namespace {

// --- short lists -------------------------------------------------------------------------------

// Floats as integers of the same order. NaN, which bounds nothing, is infinity.
inline __device__ unsigned ordered(float v) {
  const unsigned bits = __float_as_uint(v == v ? v : INFINITY);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
inline __device__ float from_ordered(unsigned o) {
  return __uint_as_float((o >> 31) != 0 ? o & 0x7fffffffu : ~o);
}

// A number that the upper bounds of at least n_nearest < k columns do not exceed: the least such
// number, unless one that no more columns keep to is found before.
template <class Upper>
__device__ float limit_of_nearest(int k, int n_nearest, const Upper& upper) {
  unsigned low = ~0u, high = 0;
  for (int c = 0; c < k; ++c) {
    const unsigned bound = ordered(upper(c));
    low = min(low, bound);
    high = max(high, bound);
  }
  // n_nearest columns or more are at most `high`, fewer are below `low`.
  while (low < high) {
    const unsigned middle = low + (high - low) / 2;
    int n_below = 0;
    for (int c = 0; c < k; ++c) n_below += ordered(upper(c)) <= middle ? 1 : 0;
    if (n_below < n_nearest) {
      low = middle + 1;
    } else {
      high = middle;
      if (n_below == n_nearest) break;
    }
  }
  return from_ordered(high);
}

// All rows are open, to the columns that may be among the nearest. A thread a row.
__global__ void __launch_bounds__(kTileRows)
    open_rows_kernel(ChunkTables chunk, int first_tile, int n_nearest) {
  const RowTile tile = chunk.tiles[first_tile + static_cast<int>(blockIdx.x)];
  const GroupShape& shape = chunk.shapes[tile.group];
  const int place = static_cast<int>(threadIdx.x);
  if (tile.first + place >= shape.n) return;
  OpenRow entry{};
  entry.scores = tile.scores + place;
  entry.position = shape.begin + tile.first + place;
  entry.group = tile.group;
  entry.limit = INFINITY;
  const float row_norm = chunk.norms[entry.position];
  if (shape.k > n_nearest && !is_wild(row_norm)) {
    const float row_lost = chunk.lost[entry.position];
    const CellBound* bounds = chunk.bounds + shape.first_cell;
    const float* products = chunk.scores + entry.scores;
    entry.limit = limit_of_nearest(shape.k, n_nearest, [&](int c) {
      const CellBound bound = bounds[c];
      return score_of(bound, products[static_cast<std::int64_t>(c) * kTileRows]) +
             error_of(bound, row_lost, row_norm);
    });
  }
  chunk.open[atomicAdd(chunk.n_open, 1)] = entry;
}

// --- order -------------------------------------------------------------------------------------

// Vectors as numbers: -0 equals 0.
template <class T>
__device__ bool equal_by_warp(const T* a, const T* b, int n) {
  bool equal = true;
  for (int j = static_cast<int>(threadIdx.x) % kWarp; j < n; j += kWarp) {
    equal = equal && a[j] == b[j];
  }
  return __all_sync(kAllLanes, equal) != 0;
}

// The nearest so far, in order. By a warp.
template <class T>
struct Ranking {
  Comparison<T> comparison;
  int n_wanted;
  std::int64_t* columns;  // [n_wanted]
  double* distances;      // [n_wanted]
  int n_found = 0;

  // Whether a column is nearer than the one in a place. Copies, which are as near, take no real
  // arithmetic.
  __device__ bool goes_before(int place, int c, double distance) {
    const int other = static_cast<int>(columns[place]);
    const double far = distances[place];
    if (!comparison.clear(distance, far) &&
        equal_by_warp(comparison.cell(c), comparison.cell(other), comparison.n)) {
      return false;
    }
    return comparison.nearer(c, distance, other, far);
  }

  // Columns come in ascending order and go behind those that are as near, which are lower.
  __device__ void enter(int c, double distance) {
    int low = 0, high = n_found;
    if (n_found == n_wanted) {
      --high;
      if (!goes_before(high, c, distance)) return;
    } else {
      ++n_found;
    }
    const int last = high;
    while (low < high) {
      const int middle = low + (high - low) / 2;
      if (goes_before(middle, c, distance)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    insert(low, last, c, distance);
  }

  // What lies in [place, last) moves by one; what lies in `last` is lost.
  __device__ void insert(int place, int last, int c, double distance) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    __syncwarp();  // all lanes know the place
    for (int end = last; end > place; end -= kWarp) {
      const int from = end - 1 - lane;
      std::int64_t column = 0;
      double far = 0;
      if (from >= place) {
        column = columns[from];
        far = distances[from];
      }
      __syncwarp();
      if (from >= place) {
        columns[from + 1] = column;
        distances[from + 1] = far;
      }
      __syncwarp();
    }
    if (lane == 0) {
      columns[place] = c;
      distances[place] = distance;
    }
    __syncwarp();
  }
};

// A warp a row. Without limbs, rows that float64 cannot settle go on to chunk.ties.
template <class T, bool kExact>
__global__ void __launch_bounds__(kExact ? kWarp : kWarp * kRankedABlock, kExact ? 1 : 3)
    rank_kernel(Chunk<T> chunk, int n_nearest, std::int64_t* columns, double* distances) {
  DDKERN_DYNAMIC_SHARED(std::int64_t, limbs);
  constexpr int kAtOnce = kExact ? 1 : 4;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) / kWarp;
  const int n_warps = static_cast<int>(gridDim.x * blockDim.x) / kWarp;
  const OpenRow* rows = kExact ? chunk.ties : chunk.open;
  const int n_rows = kExact ? *chunk.n_ties : *chunk.n_open;
  for (int e = warp; e < n_rows; e += n_warps) {
    const OpenRow entry = rows[e];
    Ranking<T> ranking{Comparison<T>(chunk, entry.group, entry.position, kExact ? limbs : nullptr),
                       n_nearest, columns + chunk.row_number(entry.position) * n_nearest,
                       distances + static_cast<std::int64_t>(warp) * n_nearest};
    visit_candidates<kAtOnce>(chunk, entry, [&](const int (&candidates)[kAtOnce]) {
      double found[kAtOnce];
      ranking.comparison.distances(candidates, found);
#pragma unroll 1
      for (int a = 0; a < kAtOnce; ++a) {
        // Chosen, not indexed, and not unrolled: one copy of the code, in registers.
        int candidate = -1;
        double distance = 0;
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s) {
          candidate = s == a ? candidates[s] : candidate;
          distance = s == a ? found[s] : distance;
        }
        if (candidate >= 0) ranking.enter(candidate, distance);
      }
      return kExact || !ranking.comparison.unclear;
    });
    if (!kExact && ranking.comparison.unclear && lane == 0) {
      chunk.ties[atomicAdd(chunk.n_ties, 1)] = entry;
    }
  }
}

}  // namespace

template <class T>
void rank_cells(const Chunk<T>& chunk, int first_tile, int n_tiles, int n_nearest,
                std::int64_t* columns, double* distances, cudaStream_t stream) {
  forget_open_rows(chunk, stream);
  DDKERN_LAUNCH(open_rows_kernel, n_tiles, kTileRows, 0, stream, chunk, first_tile, n_nearest);
  const std::int64_t n_rows = std::min(std::int64_t{n_tiles} * kTileRows, chunk.n_rows);
  const auto n_warps = static_cast<unsigned>(ranked_at_once(n_rows, n_nearest));
  DDKERN_LAUNCH((rank_kernel<T, false>), n_warps / kRankedABlock, kWarp * kRankedABlock, 0, stream,
                chunk, n_nearest, columns, distances);
  // So many blocks as large as these find room at once.
  constexpr unsigned kMostExact = 1024;
  DDKERN_LAUNCH((rank_kernel<T, true>), std::min(n_warps, kMostExact), kWarp, kLimbBytes, stream,
                chunk, n_nearest, columns, distances);
}

#define DDKERN_INSTANTIATE(T) \
  template void rank_cells(const Chunk<T>&, int, int, int, std::int64_t*, double*, cudaStream_t)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(double);

}  // namespace ddkern::kmeans::cuda
