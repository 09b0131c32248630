// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/frame.h"

#include "kmeans/cuda/arithmetic.cuh"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::block_reduce;
using ddkern::cuda::Largest;
using ddkern::cuda::Least;
using ddkern::cuda::Sum;

constexpr int kThreads = 256;
constexpr int kColumnsAThread = 4;
constexpr float kLargestHalf = 65504;

inline __device__ unsigned mix(unsigned bits, int feature) {
  unsigned h = bits ^ (static_cast<unsigned>(feature) * 0x9E3779B9u);
  h *= 0x85EBCA6Bu;
  h ^= h >> 13;
  h *= 0xC2B2AE35u;
  return h ^ (h >> 16);
}
inline __device__ unsigned bits_of(float v) { return v == 0 ? 0u : __float_as_uint(v); }
inline __device__ unsigned bits_of(double v) {
  if (v == 0) return 0;
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(v));
  return static_cast<unsigned>(bits) * 31u + static_cast<unsigned>(bits >> 32);
}

// One block a tile, one warp a row. The hash is a sum over the features, so any order will do.
template <class T>
__global__ void __launch_bounds__(kThreads) survey_kernel(Chunk<T> chunk) {
  __shared__ double largest_of_warp[kThreads / kWarp];
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  GroupFrame& frame = chunk.frames[tile.group];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t last =
      shape.n < tile.first + kTileRows ? shape.n : std::int64_t{tile.first} + kTileRows;
  T largest = 0;
  bool small_integers = true;
  for (std::int64_t i = tile.first + warp; i < last; i += kThreads / kWarp) {
    const std::int64_t position = shape.begin + i;
    const T* x = chunk.row(position);
    const bool counts = chunk.counts(position);
    bool finite = true;
    unsigned long long hash = 0;
    for (int j = lane; j < chunk.n_features; j += kWarp) {
      const T v = x[j];
      const T magnitude = v < 0 ? -v : v;
      finite = finite && v - v == 0;
      hash += mix(bits_of(v), j);
      if (!counts) continue;
      largest = largest < magnitude ? magnitude : largest;
      small_integers = small_integers && rint(v) == v && magnitude <= T{256};
    }
    hash = ddkern::cuda::warp_reduce(hash, Sum{});
    const bool all_finite = __all_sync(kAllLanes, finite) != 0;
    if (lane == 0) {
      chunk.hashes[position] = hash;
      if (!all_finite) {
        atomicMin(&frame.first_bad, static_cast<unsigned long long>(position));
      }
    }
  }
  const double most = block_reduce(static_cast<double>(largest), Largest{}, largest_of_warp);
  const bool all_small = __syncthreads_and(small_integers) != 0;
  if (threadIdx.x == 0) {
    atomicMax(&frame.largest, static_cast<unsigned long long>(__double_as_longlong(most)));
    if (!all_small) atomicOr(&frame.not_small_integers, 1u);
  }
}

template <class T>
__global__ void scale_kernel(Chunk<T> chunk) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g >= chunk.n_groups) return;
  GroupFrame& frame = chunk.frames[g];
  frame.exponent = exponent_of(__longlong_as_double(static_cast<long long>(frame.largest)));
  frame.scale = power_of_two(-frame.exponent);
  frame.unscale = power_of_two(frame.exponent);
}

// Sums of RN(z * 2^20) for the centre: a thread has a few columns of a tile of rows.
template <class T>
__global__ void __launch_bounds__(kThreads) column_sums_kernel(Chunk<T> chunk) {
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  const double to_grid =
      chunk.frames[tile.group].scale * static_cast<double>(std::int64_t{1} << kCentreBits);
  const std::int64_t last =
      shape.n < tile.first + kTileRows ? shape.n : std::int64_t{tile.first} + kTileRows;
  const int first_column = static_cast<int>(blockIdx.y) * kThreads * kColumnsAThread;
  std::int64_t sums[kColumnsAThread] = {};
  for (std::int64_t i = tile.first; i < last; ++i) {
    const std::int64_t position = shape.begin + i;
    if (!chunk.counts(position)) continue;
    const T* x = chunk.row(position);
#pragma unroll
    for (int c = 0; c < kColumnsAThread; ++c) {
      const int j = first_column + c * kThreads + static_cast<int>(threadIdx.x);
      if (j >= chunk.n_features) continue;
      sums[c] += weighted_integer(static_cast<double>(x[j]) * to_grid, chunk.weights, position);
    }
  }
#pragma unroll
  for (int c = 0; c < kColumnsAThread; ++c) {
    const int j = first_column + c * kThreads + static_cast<int>(threadIdx.x);
    if (j >= chunk.n_features || sums[c] == 0) continue;
    ddkern::cuda::atomic_add(
        chunk.column_sums + static_cast<std::int64_t>(tile.group) * chunk.n_features + j, sums[c]);
  }
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

// Sixteen threads a row: the lanes of ||y||^2, and beside it the packed row and what it loses.
template <class T>
__global__ void __launch_bounds__(kThreads) pack_kernel(Chunk<T> chunk) {
  __shared__ float largest_of_warp[kThreads / kWarp];
  const RowTile tile = chunk.tiles[blockIdx.x];
  const GroupShape& shape = chunk.shapes[tile.group];
  GroupFrame& frame = chunk.frames[tile.group];
  const double scale = frame.scale;
  const Factors factors = factors_of(-frame.exponent);
  const T* centre = chunk.centre + static_cast<std::int64_t>(tile.group) * chunk.n_features;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int half_warp = static_cast<int>(threadIdx.x) / kLanes;
  const int n = chunk.n_features;
  float largest = 0, largest_lost = 0, largest_norm = 0;
  // All threads go through the same rounds, for lanes are added by the whole warp.
  for (int r = half_warp; r < kTileRows; r += kThreads / kLanes) {
    const std::int64_t i = tile.first + r;
    const bool exists = i < shape.n;
    const std::int64_t position = shape.begin + (exists ? i : 0);
    const T* x = chunk.row(position);
    __half* to = chunk.halves + position * chunk.n_padded;
    double sq_norm = 0;
    float lost = 0, norm = 0, most = 0;
    if (exists) {
      // The next elements are asked for before these are worked on.
      constexpr int kAhead = 8;
      int j = lane;
      for (; j + (kAhead - 1) * kLanes < n; j += kAhead * kLanes) {
        T v[kAhead], m[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) v[a] = x[j + a * kLanes];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) m[a] = centre[j + a * kLanes];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
          const double y = centred(v[a], m[a], scale);
          sq_norm += y * y;
          const float y32 = centred_f32(v[a], m[a], factors, scale);
          const __half h = __float2half_rn(y32 * 0x1p13f);
          const float kept = __half2float(h) * 0x1p-13f;
          lost += (y32 - kept) * (y32 - kept);
          norm += kept * kept;
          most = fmaxf(most, fabsf(y32));
          to[j + a * kLanes] = h;
        }
      }
      for (; j < n; j += kLanes) {
        const double y = centred(x[j], centre[j], scale);
        sq_norm += y * y;
        const float y32 = centred_f32(x[j], centre[j], factors, scale);
        const __half h = __float2half_rn(y32 * 0x1p13f);
        const float kept = __half2float(h) * 0x1p-13f;
        lost += (y32 - kept) * (y32 - kept);
        norm += kept * kept;
        most = fmaxf(most, fabsf(y32));
        to[j] = h;
      }
      for (; j < chunk.n_padded; j += kLanes) to[j] = __float2half_rn(0);
    }
    sq_norm = add_lanes(sq_norm);
    for (int half = kLanes / 2; half > 0; half /= 2) {
      lost += __shfl_xor_sync(kAllLanes, lost, half);
      norm += __shfl_xor_sync(kAllLanes, norm, half);
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, half));
    }
    if (!exists || lane != 0) continue;
    // Sums of floats, n / 16 + 8 roundings deep; y32 is half an ulp from y, or a denormal.
    const float deep = 1 + (static_cast<float>(n) / kLanes + 32) * 0x1p-23f;
    const float norm_bound = sqrtf(norm) * deep + 0x1p-60f;
    const float lost_bound = sqrtf(lost) * deep * (1 + 0x1p-20f) + norm_bound * 0x1.1p-23f +
                             sqrtf(static_cast<float>(n)) * 0x1p-100f;
    // Only a row of weight 0 can be this large: nothing is known of its products.
    const bool wild = !(most * 0x1p13f <= kLargestHalf);
    chunk.sq_norms[position] = sq_norm;
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

// The weighted mean of a value of every row: sections 4 and 9. One block a group.
template <class T>
__device__ double weighted_mean(const Chunk<T>& chunk, const GroupShape& shape,
                                const double* values, double* shared) {
  double largest = 0;
  for (std::int64_t i = threadIdx.x; i < shape.n; i += blockDim.x) {
    const std::int64_t position = shape.begin + i;
    if (chunk.counts(position) && values[position] > largest) largest = values[position];
  }
  largest = block_reduce(largest, Largest{}, shared);
  const int exponent = grid_exponent(largest);
  const double unit = power_of_two(shape.grid_bits - exponent);
  std::int64_t sum = 0;
  for (std::int64_t i = threadIdx.x; i < shape.n; i += blockDim.x) {
    const std::int64_t position = shape.begin + i;
    if (!chunk.counts(position)) continue;
    sum += weighted_integer(values[position] * unit, chunk.weights, position);
  }
  sum = block_reduce(sum, Sum{}, reinterpret_cast<std::int64_t*>(shared));
  return static_cast<double>(sum) / static_cast<double>(shape.total_units) * shape.mean_factor *
         power_of_two(exponent - shape.grid_bits);
}

template <class T>
__global__ void __launch_bounds__(kThreads) grid_kernel(Chunk<T> chunk) {
  __shared__ double shared[kThreads / kWarp];
  const GroupShape& shape = chunk.shapes[blockIdx.x];
  GroupFrame& frame = chunk.frames[blockIdx.x];
  const double mean = weighted_mean(chunk, shape, chunk.sq_norms, shared);
  if (threadIdx.x != 0) return;
  frame.mean_sq_norm = mean;
  frame.row_exponent = exponent_of(static_cast<double>(__uint_as_float(frame.largest_centred)));
  frame.row_scale = power_of_two(shape.grid_bits - frame.row_exponent);
  frame.row_unit = power_of_two(frame.row_exponent - shape.grid_bits);
}

template <class T>
__global__ void __launch_bounds__(kThreads) distance_mean_kernel(Chunk<T> chunk) {
  __shared__ double shared[kThreads / kWarp];
  GroupRun& run = chunk.runs[blockIdx.x];
  if (run.far == 0) return;
  const double mean = weighted_mean(chunk, chunk.shapes[blockIdx.x], chunk.distances, shared);
  if (threadIdx.x == 0) run.scaled_distortion = mean;
}

// One block a group.
template <class T>
__global__ void __launch_bounds__(kThreads) cell_scale_kernel(Chunk<T> chunk, int most_exponent) {
  __shared__ double shared[kThreads / kWarp];
  const GroupShape& shape = chunk.shapes[blockIdx.x];
  GroupFrame& frame = chunk.frames[blockIdx.x];
  const T* values = chunk.centroids + shape.first_cell * chunk.n_features;
  const std::int64_t n = static_cast<std::int64_t>(shape.k) * chunk.n_features;
  double largest = __longlong_as_double(static_cast<long long>(frame.largest));
  for (std::int64_t v = threadIdx.x; v < n; v += kThreads) {
    largest = fmax(largest, fabs(static_cast<double>(values[v])));
  }
  largest = block_reduce(largest, Largest{}, shared);
  if (threadIdx.x != 0) return;
  const int exponent = exponent_of(largest);
  frame.exponent = min(max(exponent, -most_exponent), most_exponent);
  frame.scale = power_of_two(-frame.exponent);
  frame.unscale = power_of_two(frame.exponent);
}

template <class T>
__global__ void cell_centre_kernel(Chunk<T> chunk) {
  const int g = static_cast<int>(blockIdx.y);
  const int j = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (j >= chunk.n_features) return;
  const GroupShape& shape = chunk.shapes[g];
  double sum = 0;
  for (int c = 0; c < shape.k; ++c) {
    const T value = chunk.centroids[(shape.first_cell + c) * chunk.n_features + j];
    sum += static_cast<double>(value) * chunk.frames[g].scale;
  }
  chunk.centre[static_cast<std::int64_t>(g) * chunk.n_features + j] =
      static_cast<T>(sum / static_cast<double>(shape.k));
}

dim3 by_feature(int n_features, int n_groups) {
  return dim3(static_cast<unsigned>((n_features + kThreads - 1) / kThreads),
              static_cast<unsigned>(n_groups));
}

}  // namespace

template <class T>
void survey_rows(const Chunk<T>& chunk, cudaStream_t stream) {
  DDKERN_LAUNCH(survey_kernel<T>, chunk.n_tiles, kThreads, 0, stream, chunk);
}

template <class T>
void pack_rows(const Chunk<T>& chunk, cudaStream_t stream) {
  const unsigned per_group = static_cast<unsigned>((chunk.n_groups + kThreads - 1) / kThreads);
  constexpr int kColumns = kThreads * kColumnsAThread;
  const dim3 slabs(static_cast<unsigned>(chunk.n_tiles),
                   static_cast<unsigned>((chunk.n_features + kColumns - 1) / kColumns));
  DDKERN_LAUNCH(scale_kernel<T>, per_group, kThreads, 0, stream, chunk);
  DDKERN_LAUNCH(column_sums_kernel<T>, slabs, kThreads, 0, stream, chunk);
  DDKERN_LAUNCH(centre_kernel<T>, by_feature(chunk.n_features, chunk.n_groups), kThreads, 0, stream,
                chunk);
  DDKERN_LAUNCH(pack_kernel<T>, chunk.n_tiles, kThreads, 0, stream, chunk);
  DDKERN_LAUNCH(grid_kernel<T>, chunk.n_groups, kThreads, 0, stream, chunk);
}

template <class T>
void frame_cells(const Chunk<T>& chunk, cudaStream_t stream) {
  constexpr int kMostExponent = 1000;  // 2^-exponent must be finite too
  DDKERN_LAUNCH(cell_scale_kernel<T>, chunk.n_groups, kThreads, 0, stream, chunk, kMostExponent);
  DDKERN_LAUNCH(cell_centre_kernel<T>, by_feature(chunk.n_features, chunk.n_groups), kThreads, 0,
                stream, chunk);
}

template <class T>
void pack_rows_in_frame(const Chunk<T>& chunk, cudaStream_t stream) {
  DDKERN_LAUNCH(pack_kernel<T>, chunk.n_tiles, kThreads, 0, stream, chunk);
}

template <class T>
void average_distances(const Chunk<T>& chunk, cudaStream_t stream) {
  DDKERN_LAUNCH(distance_mean_kernel<T>, chunk.n_groups, kThreads, 0, stream, chunk);
}

template void survey_rows(const Chunk<float>&, cudaStream_t);
template void survey_rows(const Chunk<double>&, cudaStream_t);
template void pack_rows(const Chunk<float>&, cudaStream_t);
template void pack_rows(const Chunk<double>&, cudaStream_t);
template void frame_cells(const Chunk<float>&, cudaStream_t);
template void frame_cells(const Chunk<double>&, cudaStream_t);
template void pack_rows_in_frame(const Chunk<float>&, cudaStream_t);
template void pack_rows_in_frame(const Chunk<double>&, cudaStream_t);
template void average_distances(const Chunk<float>&, cudaStream_t);
template void average_distances(const Chunk<double>&, cudaStream_t);

}  // namespace ddkern::kmeans::cuda
