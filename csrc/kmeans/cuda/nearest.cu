// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/nearest.h"

#include <algorithm>

#include "kmeans/cuda/nearest.cuh"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::Sum;
using ddkern::cuda::warp_reduce;

constexpr int kSettleThreads = 128;
constexpr double kSmallestCertain = 0x1p-900;  // squares of less may have lost digits

// kSlices threads a row: each goes through every kSlices-th column, and the first joins what they
// found.
template <class T, int kSlices>
__global__ void __launch_bounds__(kTileRows* kSlices) scan_kernel(Chunk<T> chunk, int first_tile) {
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

// --- real arithmetic ---------------------------------------------------------------------------

// A sum of products of doubles without rounding (Kulisch's long accumulator), spread over a warp:
// every lane has limbs of its own, [limb][lane], which are added at the end.
constexpr int kLowestExponent = 2 * -1074;
constexpr int kLimbs = (2 * 1074 + 2 * 1024 + 64) / 32 + 6;

inline __device__ void add_product(std::int64_t* limbs, double a, double b, bool negative) {
  const double factors[2] = {a, b};
  std::uint64_t mantissa[2];
  int position = -kLowestExponent;
#pragma unroll
  for (int f = 0; f < 2; ++f) {
    const auto bits = static_cast<std::uint64_t>(__double_as_longlong(factors[f]));
    const int biased = static_cast<int>((bits >> 52) & 0x7ff);
    const std::uint64_t fraction = bits & ((std::uint64_t{1} << 52) - 1);
    mantissa[f] = biased == 0 ? fraction : fraction | (std::uint64_t{1} << 52);
    position += biased == 0 ? -1074 : biased - 1075;
    negative = negative != ((bits >> 63) != 0);
  }
  if (mantissa[0] == 0 || mantissa[1] == 0) return;
  // 53 by 53 bits in 32-bit pieces; the high ones have 21 bits.
  const std::uint64_t a0 = mantissa[0] & 0xffffffffu, a1 = mantissa[0] >> 32;
  const std::uint64_t b0 = mantissa[1] & 0xffffffffu, b1 = mantissa[1] >> 32;
  const std::uint64_t low = a0 * b0, cross = a1 * b0 + (low >> 32),
                      cross2 = a0 * b1 + (cross & 0xffffffffu);
  const std::uint64_t high = a1 * b1 + (cross >> 32) + (cross2 >> 32);
  const std::uint32_t words[4] = {
      static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(cross2),
      static_cast<std::uint32_t>(high), static_cast<std::uint32_t>(high >> 32)};
  const int limb = position / 32, shift = position % 32;
  std::uint64_t carried = 0;
#pragma unroll
  for (int w = 0; w < 5; ++w) {
    const std::uint64_t shifted = (w < 4 ? std::uint64_t{words[w]} << shift : 0) | carried;
    const auto word = static_cast<std::int64_t>(shifted & 0xffffffffu);
    carried = shifted >> 32;
    limbs[(limb + w) * kWarp] += negative ? -word : word;
  }
}

// The sign of ||x - a||^2 - ||x - b||^2 in real arithmetic; all lanes call it and have the answer.
template <class T>
__device__ int compare_exactly(const T* x, const T* a, const T* b, int n, std::int64_t* limbs) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  std::int64_t* mine = limbs + lane;
  for (int l = 0; l < kLimbs; ++l) mine[l * kWarp] = 0;
  for (int j = lane; j < n; j += kWarp) {
    const double xj = x[j], aj = a[j], bj = b[j];
    if (aj == bj) continue;
    add_product(mine, aj, aj, false);
    add_product(mine, bj, bj, true);
    add_product(mine, xj, aj, true);
    add_product(mine, xj, aj, true);
    add_product(mine, xj, bj, false);
    add_product(mine, xj, bj, false);
  }
  // Limbs of all lanes together, carried upwards: in [0, 2^32) but for the highest, which has the
  // sign.
  std::int64_t carried = 0;
  bool any = false;
  for (int l = 0; l < kLimbs; ++l) {
    const std::int64_t sum = warp_reduce(mine[l * kWarp], Sum{}) + carried;
    if (l == kLimbs - 1) return sum < 0 ? -1 : (sum > 0 || any ? 1 : 0);
    carried = sum >> 32;
    any = any || (sum & 0xffffffffll) != 0;
  }
  return 0;
}

// --- open rows ---------------------------------------------------------------------------------

// Squared distances of a row to kCells cells by a warp, in any order.
template <class T, int kCells>
__device__ void distances_by_warp(const T* x, const T* const (&cells)[kCells], double scale, int n,
                                  double (&distances)[kCells]) {
  double sums[kCells] = {};
#pragma unroll 4
  for (int j = static_cast<int>(threadIdx.x) % kWarp; j < n; j += kWarp) {
    const double value = static_cast<double>(x[j]) * scale;
#pragma unroll
    for (int c = 0; c < kCells; ++c) {
      const double r = value - static_cast<double>(cells[c][j]) * scale;
      sums[c] += r * r;
    }
  }
#pragma unroll
  for (int c = 0; c < kCells; ++c) distances[c] = warp_reduce(sums[c], Sum{});
}

// The nearest so far of the columns that one row may belong to.
template <class T>
struct Contest {
  const T* x;
  const T* cells;
  double scale, relative_error;
  int n;
  std::int64_t* limbs;  // null: what float64 cannot tell is `unclear`
  int best = -1;
  double best_distance = 0;
  bool unclear = false;

  __device__ const T* cell(int c) const { return cells + static_cast<std::int64_t>(c) * n; }

  // Columns that are not negative, as the first is not; in ascending order, so that an exact tie
  // keeps the lowest.
  template <int kCells>
  __device__ void enter(const int (&columns)[kCells]) {
    const T* contestants[kCells];
    double distances[kCells];
#pragma unroll
    for (int c = 0; c < kCells; ++c)
      contestants[c] = cell(columns[c] < 0 ? columns[0] : columns[c]);
    distances_by_warp(x, contestants, scale, n, distances);
#pragma unroll
    for (int c = 0; c < kCells; ++c) {
      if (columns[c] >= 0) enter(columns[c], distances[c]);
    }
  }

  __device__ void enter(int c, double distance) {
    if (best >= 0) {
      const double low = fmin(distance, best_distance), high = fmax(distance, best_distance);
      const bool clear = low * (1 + relative_error) < high * (1 - relative_error) &&
                         high > kSmallestCertain && distance == distance;
      bool nearer = distance < best_distance;
      if (!clear) {
        unclear = true;
        nearer = limbs != nullptr && compare_exactly(x, cell(c), cell(best), n, limbs) < 0;
      }
      if (!nearer) return;
    }
    best = c;
    best_distance = distance;
  }
};

// <Y, C> by one thread, for scores that were not kept. A sum of floats one after the other is
// within the bound of products.h.
template <class T>
__device__ float packed_product(const Chunk<T>& chunk, std::int64_t position, std::int64_t cell) {
  const __half* row = chunk.halves + position * chunk.n_padded;
  const __half* other = chunk.cell_halves + cell * chunk.n_padded;
  float sum = 0;
  for (int j = 0; j < chunk.n_padded; j += 8) {
    __half a[8], b[8];
    load_aligned(row + j, a);
    load_aligned(other + j, b);
#pragma unroll
    for (int v = 0; v < 8; ++v) sum = __fmaf_rn(__half2float(a[v]), __half2float(b[v]), sum);
  }
  return sum * kProductUnit;
}

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
    const GroupShape& shape = chunk.shapes[entry.group];
    const std::int64_t position = entry.position;
    // Roundings of a difference, its square, and the sum over a lane and over the lanes.
    const double relative_error = (chunk.n_features / kWarp + 16) * 0x1p-52;
    Contest<T> contest{chunk.row(position),
                       chunk.centroids + shape.first_cell * chunk.n_features,
                       chunk.frames[entry.group].scale,
                       relative_error,
                       chunk.n_features,
                       kExact ? limbs : nullptr};
    if (entry.n_columns > 0) {
#pragma unroll
      for (int c = 0; c < kListed; ++c) {
        const int column[1] = {entry.columns[c]};
        if (c < entry.n_columns) contest.enter(column);
      }
    } else {
      const float row_lost = chunk.lost[position], row_norm = chunk.norms[position];
      const bool wild = is_wild(row_norm);
      for (int first = 0; first < shape.k; first += kWarp) {
        const int c = first + lane;
        bool may_win = c < shape.k;
        if (may_win && !wild) {
          const std::int64_t cell = shape.first_cell + c;
          const float product =
              entry.scores >= 0
                  ? chunk.scores[entry.scores + static_cast<std::int64_t>(c) * kTileRows]
                  : packed_product(chunk, position, cell);
          const CellBound bound = chunk.bounds[cell];
          may_win = !(score_of(bound, product) - error_of(bound, row_lost, row_norm) > entry.limit);
        }
        constexpr int kAtOnce = kExact ? 1 : 4;  // real arithmetic is long enough once
        unsigned mask = __ballot_sync(kAllLanes, may_win);
        while (mask != 0) {
          int columns[kAtOnce];
#pragma unroll
          for (int a = 0; a < kAtOnce; ++a) {
            columns[a] = mask != 0 ? first + __ffs(static_cast<int>(mask)) - 1 : -1;
            mask &= mask - 1;
          }
          contest.enter(columns);
        }
      }
    }
    if (lane != 0) continue;
    if (contest.unclear) {
      if constexpr (kExact) {
        ddkern::cuda::atomic_add(&chunk.runs[entry.group].n_exact, 1);
      } else {
        chunk.ties[atomicAdd(chunk.n_ties, 1)] = entry;
        continue;
      }
    }
    chunk.assignment[position] = contest.best;
  }
}

// Sixteen threads a row. Where squares leave the range of float64 the difference is brought near 1
// first.
template <class T>
__global__ void __launch_bounds__(kTileRows)
    write_assignment_kernel(Chunk<T> chunk, std::int64_t* assignment, double* distance) {
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int n = chunk.n_features;
  for (int r = static_cast<int>(threadIdx.x) / kLanes; r < kTileRows; r += kTileRows / kLanes) {
    const bool exists = tile.first + r < shape.n;
    const std::int64_t position = shape.begin + (exists ? tile.first + r : 0);
    const int cell = chunk.assignment[position];
    double found = 0;
    if (distance != nullptr) {
      const T* x = chunk.row(position);
      const T* c = chunk.centroids + (shape.first_cell + cell) * n;
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
      const bool in_range = squared >= kSmallestCertain && squared <= 1 / kSmallestCertain;
      found = in_range ? sqrt(squared) : largest == 0 ? 0 : ldexp(sqrt(sum), exponent);
    }
    if (!exists || lane != 0) continue;
    const std::int64_t row = chunk.row_number(position);
    assignment[row] = cell;
    if (distance != nullptr) distance[row] = found;
  }
}

}  // namespace

template <class T>
void write_assignment(const Chunk<T>& chunk, std::int64_t* assignment, double* distance,
                      cudaStream_t stream) {
  DDKERN_LAUNCH(write_assignment_kernel<T>, chunk.n_tiles, kTileRows, 0, stream, chunk, assignment,
                distance);
}

template <class T>
void forget_open_rows(const Chunk<T>& chunk, cudaStream_t stream) {
  DDKERN_CUDA_TRY(cudaMemsetAsync(chunk.n_open, 0, sizeof(int), stream));
  DDKERN_CUDA_TRY(cudaMemsetAsync(chunk.n_ties, 0, sizeof(int), stream));
}

template <class T>
void scan_scores(const Chunk<T>& chunk, int first_tile, int n_tiles, cudaStream_t stream) {
  // Many columns and few tiles would leave most of the device idle.
  constexpr int kManyColumns = 256, kSlices = 4;
  if (chunk.most_k > kManyColumns) {
    DDKERN_LAUNCH((scan_kernel<T, kSlices>), n_tiles, kTileRows * kSlices, 0, stream, chunk,
                  first_tile);
  } else {
    DDKERN_LAUNCH((scan_kernel<T, 1>), n_tiles, kTileRows, 0, stream, chunk, first_tile);
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
  constexpr std::size_t kLimbBytes = sizeof(std::int64_t) * kLimbs * kWarp;
  const auto exact = static_cast<unsigned>(std::min<std::int64_t>(most, n_multiprocessors * 4));
  DDKERN_LAUNCH((settle_kernel<T, true>), exact, kWarp, kLimbBytes, stream, chunk);
}

template void write_assignment(const Chunk<float>&, std::int64_t*, double*, cudaStream_t);
template void write_assignment(const Chunk<double>&, std::int64_t*, double*, cudaStream_t);
#define DDKERN_INSTANTIATE(T)                                         \
  template void forget_open_rows(const Chunk<T>&, cudaStream_t);      \
  template void scan_scores(const Chunk<T>&, int, int, cudaStream_t); \
  template void settle_open_rows(const Chunk<T>&, std::int64_t, int, cudaStream_t)

DDKERN_INSTANTIATE(float);
DDKERN_INSTANTIATE(double);

}  // namespace ddkern::kmeans::cuda
