// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/frame.h"

#include <algorithm>
#include <type_traits>

#include "kmeans/cuda/arithmetic.cuh"
#include "kmeans/cuda/row_means.h"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::block_reduce;
using ddkern::cuda::blocks_for;
using ddkern::cuda::Largest;
using ddkern::cuda::Sum;

constexpr int kThreads = 256;
constexpr int kColumnsAThread = 4;
constexpr float kLargestHalf = 65504;

// A row's hash is the sum of its values' bits, each times an odd number of its feature's. Rows that
// hash alike are compared.
inline __device__ unsigned multiplier_of(int feature) {
  const unsigned h = static_cast<unsigned>(feature) * 0x9E3779B1u;
  return (h ^ (h >> 15) * 0x85EBCA77u) | 1u;
}
// -0 is 0.
inline __device__ unsigned bits_of(float v) { return __float_as_uint(v + 0.0f); }
inline __device__ unsigned bits_of(double v) {
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(v + 0.0));
  return static_cast<unsigned>(bits) * 31u + static_cast<unsigned>(bits >> 32);
}

inline __device__ std::int64_t last_row(const GroupShape& shape, const RowTile& tile) {
  return shape.n < tile.first + kTileRows ? shape.n : std::int64_t{tile.first} + kTileRows;
}

// The grid of the sums for the centre hangs on the largest magnitude of a group. It is guessed from
// some of its rows, so that one pass finds both; groups that were guessed wrong are summed again.
constexpr int kSampledRows = 128;
template <class T>
__global__ void __launch_bounds__(kThreads) guess_kernel(Chunk<T> chunk) {
  __shared__ double shared[kThreads / kWarp];
  const GroupShape& shape = chunk.shapes[blockIdx.x];
  double largest = 0;
  for (int s = 0; s < kSampledRows; ++s) {
    const std::int64_t position = shape.begin + s * shape.n / kSampledRows;
    if (!chunk.counts(position)) continue;
    const T* x = chunk.row(position);
    for (int j = static_cast<int>(threadIdx.x); j < chunk.n_features; j += kThreads) {
      largest = fmax(largest, fabs(static_cast<double>(x[j])));
    }
  }
  largest = block_reduce(largest, Largest{}, shared);
  if (threadIdx.x != 0) return;
  // A row that is not finite is found by the survey.
  const bool usable = largest <= 0x1p900 && largest >= 0x1p-900;
  chunk.frames[blockIdx.x].guessed_exponent = usable ? exponent_of(largest) : 0;
}

// RN(z * 2^20), for rows without weights and float32 by the conversion to 32 bits, which is enough
// where the guess is right.
template <class T>
struct CentreSum {
  std::int64_t sum = 0;
  __device__ void add(T x, const Factors&, double to_grid, const double* weights,
                      std::int64_t position) {
    sum += weighted_integer(static_cast<double>(x) * to_grid, weights, position);
  }
};
struct NarrowCentreSum {
  std::int64_t sum = 0;
  __device__ void add(float x, const Factors& factors, double, const double*, std::int64_t) {
    sum += __float2int_rn(x * factors.first * factors.rest);
  }
};

// A thread has a few neighbouring columns of a tile of rows. Rows of weight 0 are only checked.
// With `again`, the groups that were guessed wrong are summed, and nothing else is done.
template <class T, class Summed, bool kAligned>
__global__ void __launch_bounds__(kThreads) survey_kernel(Chunk<T> chunk, bool again) {
  __shared__ double largest_of_warp[kThreads / kWarp];
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  GroupFrame& frame = chunk.frames[tile.group];
  if (again && frame.guessed_exponent == frame.exponent) return;
  const int exponent = again ? frame.exponent : frame.guessed_exponent;
  const Factors factors = factors_of(kCentreBits - exponent);
  const double to_grid = power_of_two(kCentreBits - exponent);
  const std::int64_t last = last_row(shape, tile);
  const int first_column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kColumnsAThread;
  const int n_left = chunk.n_features - first_column;
  const int n_own = n_left < 0 ? 0 : n_left < kColumnsAThread ? n_left : kColumnsAThread;
  Summed sums[kColumnsAThread];
  T largest = 0;
  bool small_integers = true;
  constexpr int kRowsAtOnce = 4;
  for (std::int64_t i = tile.first; i < last && n_own > 0; i += kRowsAtOnce) {
    T values[kRowsAtOnce][kColumnsAThread];
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const T* x = chunk.row(shape.begin + (i + r < last ? i + r : i)) + first_column;
      if constexpr (kAligned) {
        load_aligned(x, values[r]);
      } else {
#pragma unroll
        for (int c = 0; c < kColumnsAThread; ++c) values[r][c] = x[c < n_own ? c : 0];
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      if (i + r >= last) break;
      const std::int64_t position = shape.begin + i + r;
      const bool counts = chunk.counts(position);
      bool finite = true;
#pragma unroll
      for (int c = 0; c < kColumnsAThread; ++c) {
        const T v = values[r][c], magnitude = v < 0 ? -v : v;
        finite = finite && v - v == 0;
        if (!counts) continue;
        largest = largest < magnitude ? magnitude : largest;
        small_integers = small_integers && rint(v) == v && magnitude <= T{256};
        sums[c].add(v, factors, to_grid, chunk.weights, position);
      }
      if (!finite) atomicMin(&frame.first_bad, static_cast<unsigned long long>(position));
    }
  }
#pragma unroll
  for (int c = 0; c < kColumnsAThread; ++c) {
    if (c >= n_own || sums[c].sum == 0) continue;
    ddkern::cuda::atomic_add(chunk.column_sums +
                                 static_cast<std::int64_t>(tile.group) * chunk.n_features +
                                 first_column + c,
                             sums[c].sum);
  }
  if (again) return;
  const double most = block_reduce(static_cast<double>(largest), Largest{}, largest_of_warp);
  const bool all_small = __syncthreads_and(small_integers) != 0;
  if (threadIdx.x == 0) {
    atomicMax(&frame.largest, static_cast<unsigned long long>(__double_as_longlong(most)));
    if (!all_small) atomicOr(&frame.not_small_integers, 1u);
  }
}

__global__ void scale_kernel(ChunkTables chunk) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g >= chunk.n_groups) return;
  GroupFrame& frame = chunk.frames[g];
  frame.exponent = exponent_of(__longlong_as_double(static_cast<long long>(frame.largest)));
  frame.scale = power_of_two(-frame.exponent);
  frame.unscale = power_of_two(frame.exponent);
}

__global__ void forget_sums_kernel(ChunkTables chunk) {
  const int g = static_cast<int>(blockIdx.y);
  const int j = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const GroupFrame& frame = chunk.frames[g];
  if (j >= chunk.n_features || frame.guessed_exponent == frame.exponent) return;
  chunk.column_sums[static_cast<std::int64_t>(g) * chunk.n_features + j] = 0;
}

template <class T>
__global__ void centre_kernel(Chunk<T> chunk) {
  const int g = static_cast<int>(blockIdx.y);
  const int j = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (j >= chunk.n_features) return;
  const GroupShape& shape = chunk.shapes[g];
  const GroupFrame& frame = chunk.frames[g];
  const std::int64_t at = static_cast<std::int64_t>(g) * chunk.n_features + j;
  const double mean = static_cast<double>(chunk.column_sums[at]) /
                      static_cast<double>(shape.total_units) *
                      (shape.mean_factor * power_of_two(-kCentreBits));
  chunk.centre[at] = frame.not_small_integers != 0
                         ? static_cast<T>(mean)
                         : static_cast<T>(rint(mean * frame.unscale) * frame.scale);
}

// 16 / kWidth threads a row: the lanes of ||y||^2, and beside it the packed row, what it loses, and
// a hash of its values.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 3) pack_kernel(Chunk<T> chunk) {
  constexpr int kParts = Lanes<kWidth>::kParts, kRowsAtOnce = kThreads / kParts;
  constexpr int kAhead = 4;
  __shared__ float largest_of_warp[kThreads / kWarp];
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  GroupFrame& frame = chunk.frames[tile.group];
  const double scale = frame.scale;
  const Factors factors = factors_of(-frame.exponent);
  const T* centre = chunk.centre + static_cast<std::int64_t>(tile.group) * chunk.n_features;
  const int part = static_cast<int>(threadIdx.x) % kParts;
  const int n = chunk.n_features;
  float largest = 0, largest_lost = 0, largest_norm = 0;
  // All threads go through the same rounds, for lanes are added by the whole warp.
  for (int r = static_cast<int>(threadIdx.x) / kParts; r < kTileRows; r += kRowsAtOnce) {
    const bool exists = tile.first + r < shape.n;
    const std::int64_t position = shape.begin + tile.first + (exists ? r : 0);
    const T* x = chunk.row(position);
    __half* to = chunk.halves + position * chunk.n_padded;
    Lanes<kWidth> sq_norms;
    float lost = 0, norm = 0, most = 0;
    unsigned long long hash = 0;
    // With more than one value a thread, the features are a multiple of 64.
    for (int first = part * kWidth; first < n; first += kAhead * kLanes) {
      T values[kAhead][kWidth], centres[kAhead][kWidth];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int j = first + a * kLanes < n ? first + a * kLanes : first;
        load_values(x + j, values[a]);
        load_values(centre + j, centres[a]);
      }
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int j = first + a * kLanes;
        if (j >= n) break;
        __half halves[kWidth];
#pragma unroll
        for (int v = 0; v < kWidth; ++v) {
          const double y = centred(values[a][v], centres[a][v], scale);
          sq_norms.values[v] += y * y;
          const float y32 = centred_f32(values[a][v], centres[a][v], factors, scale);
          halves[v] = __float2half_rn(y32 * 0x1p13f);
          const float kept = __half2float(halves[v]) * 0x1p-13f;
          lost = __fmaf_rn(y32 - kept, y32 - kept, lost);
          norm = __fmaf_rn(kept, kept, norm);
          most = fmaxf(most, fabsf(y32));
          hash += static_cast<unsigned long long>(bits_of(values[a][v])) * multiplier_of(j + v);
        }
        if (exists) store_halves(to + j, halves);
      }
    }
    if constexpr (kWidth == 1) {
      for (int j = (n + kLanes - 1) / kLanes * kLanes - kLanes + part; j < chunk.n_padded;
           j += kLanes) {
        if (j >= n && exists) to[j] = __float2half_rn(0);
      }
    }
    const double sq_norm = sq_norms.total();
    lost = join_parts<kParts>(lost, Sum{});
    norm = join_parts<kParts>(norm, Sum{});
    most = join_parts<kParts>(most, Largest{});
    hash = join_parts<kParts>(hash, Sum{});
    if (!exists || part != 0) continue;
    // Sums of floats, n / kParts + 8 roundings deep; y32 is half an ulp from y, or a denormal, and
    // of what is lost the square of less than 2^-63 may lose digits, or all.
    const float deep = 1 + (static_cast<float>(n) / kParts + 32) * 0x1p-23f;
    const float norm_bound = sqrtf(norm) * deep + 0x1p-60f;
    const float lost_bound = sqrtf(lost) * deep * (1 + 0x1p-20f) + norm_bound * 0x1.1p-23f +
                             sqrtf(static_cast<float>(n)) * kLostSquares;
    // Only a row of weight 0 can be this large: nothing is known of its products.
    const bool wild = !(most * 0x1p13f <= kLargestHalf);
    chunk.sq_norms[position] = sq_norm;
    chunk.hashes[position] = hash;
    chunk.lost[position] = wild ? 0 : lost_bound;
    chunk.norms[position] = wild ? INFINITY : norm_bound;
    if (wild || !chunk.counts(position)) continue;
    largest = fmaxf(largest, most);
    largest_lost = fmaxf(largest_lost, lost_bound);
    largest_norm = fmaxf(largest_norm, norm_bound);
  }
  largest = block_reduce(largest, Largest{}, largest_of_warp);
  largest_lost = block_reduce(largest_lost, Largest{}, largest_of_warp);
  largest_norm = block_reduce(largest_norm, Largest{}, largest_of_warp);
  if (threadIdx.x != 0) return;
  atomicMax(&frame.largest_centred, __float_as_uint(largest));
  atomicMax(reinterpret_cast<unsigned*>(&frame.largest_lost), __float_as_uint(largest_lost));
  atomicMax(reinterpret_cast<unsigned*>(&frame.largest_norm), __float_as_uint(largest_norm));
}

// What is left of the frames, once the means of ||y||^2 are known.
__global__ void grid_kernel(ChunkTables chunk) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g >= chunk.n_groups) return;
  const GroupShape& shape = chunk.shapes[g];
  GroupFrame& frame = chunk.frames[g];
  frame.mean_sq_norm = chunk.means[g].mean;
  frame.row_exponent = exponent_of(static_cast<double>(__uint_as_float(frame.largest_centred)));
  frame.row_scale = power_of_two(shape.grid_bits - frame.row_exponent);
  frame.row_unit = power_of_two(frame.row_exponent - shape.grid_bits);
}

// Of the centroids, beside that of the rows.
constexpr unsigned kMostScalingBlocks = 64;  // of a group
template <class T>
__global__ void __launch_bounds__(kThreads) largest_of_cells_kernel(Chunk<T> chunk) {
  __shared__ double shared[kThreads / kWarp];
  const GroupShape& shape = chunk.shapes[blockIdx.y];
  const T* values = chunk.centroids + shape.first_cell * chunk.n_features;
  const std::int64_t n = static_cast<std::int64_t>(shape.k) * chunk.n_features;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  double largest = 0;
  for (std::int64_t v = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; v < n; v += stride) {
    largest = fmax(largest, fabs(static_cast<double>(values[v])));
  }
  largest = block_reduce(largest, Largest{}, shared);
  if (threadIdx.x != 0) return;
  atomicMax(&chunk.frames[blockIdx.y].largest,
            static_cast<unsigned long long>(__double_as_longlong(largest)));
}

__global__ void cell_scale_kernel(ChunkTables chunk, int most_exponent) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g >= chunk.n_groups) return;
  GroupFrame& frame = chunk.frames[g];
  const int exponent = exponent_of(__longlong_as_double(static_cast<long long>(frame.largest)));
  frame.exponent = min(max(exponent, -most_exponent), most_exponent);
  frame.scale = power_of_two(-frame.exponent);
  frame.unscale = power_of_two(frame.exponent);
}

// The mean of some of the cells is a centre as good as that of all.
constexpr int kSampledCells = 128;
template <class T>
__global__ void cell_centre_kernel(Chunk<T> chunk) {
  const int g = static_cast<int>(blockIdx.y);
  const int j = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (j >= chunk.n_features) return;
  const GroupShape& shape = chunk.shapes[g];
  const int n = min(shape.k, kSampledCells);
  double sum = 0;
  for (int s = 0; s < n; ++s) {
    const std::int64_t cell = shape.first_cell + std::int64_t{s} * shape.k / n;
    sum +=
        static_cast<double>(chunk.centroids[cell * chunk.n_features + j]) * chunk.frames[g].scale;
  }
  chunk.centre[static_cast<std::int64_t>(g) * chunk.n_features + j] =
      static_cast<T>(sum / static_cast<double>(n));
}

dim3 by_feature(int n_features, int n_groups) {
  return dim3(blocks_for(n_features, kThreads), static_cast<unsigned>(n_groups));
}

template <class T, class Summed, bool kAligned>
void launch_survey(const Chunk<T>& chunk, bool again, cudaStream_t stream) {
  const dim3 slabs(static_cast<unsigned>(chunk.n_tiles),
                   blocks_for(chunk.n_features, kThreads * kColumnsAThread));
  DDKERN_LAUNCH((survey_kernel<T, Summed, kAligned>), slabs, kThreads, 0, stream, chunk, again);
}

template <class T, class Summed>
void launch_survey(const Chunk<T>& chunk, bool again, cudaStream_t stream) {
  if (rows_are_aligned(chunk)) return launch_survey<T, Summed, true>(chunk, again, stream);
  launch_survey<T, Summed, false>(chunk, again, stream);
}

template <class T>
void sum_columns(const Chunk<T>& chunk, bool again, cudaStream_t stream) {
  if constexpr (std::is_same_v<T, float>) {
    if (chunk.weights == nullptr) {
      return launch_survey<T, NarrowCentreSum>(chunk, again, stream);
    }
  }
  launch_survey<T, CentreSum<T>>(chunk, again, stream);
}

}  // namespace

template <class T>
void survey_rows(const Chunk<T>& chunk, cudaStream_t stream) {
  DDKERN_CUDA_TRY(cudaMemsetAsync(chunk.column_sums, 0,
                                  sizeof(std::int64_t) * static_cast<std::size_t>(chunk.n_groups) *
                                      static_cast<std::size_t>(chunk.n_features),
                                  stream));
  DDKERN_LAUNCH(guess_kernel<T>, chunk.n_groups, kThreads, 0, stream, chunk);
  sum_columns(chunk, false, stream);
  DDKERN_LAUNCH(scale_kernel, blocks_for(chunk.n_groups, kThreads), kThreads, 0, stream, chunk);
}

template <class T>
void pack_rows(const Chunk<T>& chunk, cudaStream_t stream) {
  const dim3 features = by_feature(chunk.n_features, chunk.n_groups);
  DDKERN_LAUNCH(forget_sums_kernel, features, kThreads, 0, stream, chunk);
  sum_columns(chunk, true, stream);
  DDKERN_LAUNCH(centre_kernel<T>, features, kThreads, 0, stream, chunk);
  pack_rows_in_frame(chunk, stream);
  find_means(chunk, chunk.sq_norms, Which::all, stream);
  DDKERN_LAUNCH(grid_kernel, blocks_for(chunk.n_groups, kThreads), kThreads, 0, stream, chunk);
}

template <class T>
void frame_cells(const Chunk<T>& chunk, cudaStream_t stream) {
  constexpr int kMostExponent = 1000;  // 2^-exponent must be finite too
  const dim3 blocks(
      std::min(blocks_for(chunk.most_k * chunk.n_features, 4 * kThreads), kMostScalingBlocks),
      static_cast<unsigned>(chunk.n_groups));
  DDKERN_LAUNCH(largest_of_cells_kernel<T>, blocks, kThreads, 0, stream, chunk);
  DDKERN_LAUNCH(cell_scale_kernel, blocks_for(chunk.n_groups, kThreads), kThreads, 0, stream, chunk,
                kMostExponent);
  DDKERN_LAUNCH(cell_centre_kernel<T>, by_feature(chunk.n_features, chunk.n_groups), kThreads, 0,
                stream, chunk);
}

template <class T>
void pack_rows_in_frame(const Chunk<T>& chunk, cudaStream_t stream) {
  if constexpr (std::is_same_v<T, float>) {
    if (rows_are_aligned(chunk)) {
      DDKERN_LAUNCH((pack_kernel<T, 4>), chunk.n_tiles, kThreads, 0, stream, chunk);
      return;
    }
  }
  DDKERN_LAUNCH((pack_kernel<T, 1>), chunk.n_tiles, kThreads, 0, stream, chunk);
}

template void survey_rows(const Chunk<float>&, cudaStream_t);
template void survey_rows(const Chunk<double>&, cudaStream_t);
template void pack_rows(const Chunk<float>&, cudaStream_t);
template void pack_rows(const Chunk<double>&, cudaStream_t);
template void frame_cells(const Chunk<float>&, cudaStream_t);
template void frame_cells(const Chunk<double>&, cudaStream_t);
template void pack_rows_in_frame(const Chunk<float>&, cudaStream_t);
template void pack_rows_in_frame(const Chunk<double>&, cudaStream_t);

}  // namespace ddkern::kmeans::cuda
