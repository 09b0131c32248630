// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/row_means.h"

#include "kmeans/cuda/arithmetic.cuh"

namespace ddkern::kmeans::cuda {
namespace {

using ddkern::cuda::block_reduce;
using ddkern::cuda::blocks_for;
using ddkern::cuda::Largest;
using ddkern::cuda::Sum;

// A thread has a row of the tile. The largest of non-negative numbers has no order.
__global__ void __launch_bounds__(kTileRows)
    largest_kernel(ChunkTables chunk, const double* values, Which which) {
  __shared__ double shared[kTileRows / kWarp];
  const RowTile tile = chunk.tiles[blockIdx.x];
  if (!takes_part(chunk.runs[tile.group], which)) return;
  const GroupShape& shape = chunk.shapes[tile.group];
  const int row = tile.first + static_cast<int>(threadIdx.x);
  const std::int64_t position = shape.begin + row;
  const double mine = row < shape.n && chunk.counts(position) ? values[position] : 0;
  const double largest = block_reduce(mine, Largest{}, shared);
  if (threadIdx.x == 0) ddkern::cuda::atomic_max(&chunk.means[tile.group].largest, largest);
}

__global__ void __launch_bounds__(kTileRows)
    sum_kernel(ChunkTables chunk, const double* values, Which which) {
  __shared__ std::int64_t shared[kTileRows / kWarp];
  const RowTile tile = chunk.tiles[blockIdx.x];
  if (!takes_part(chunk.runs[tile.group], which)) return;
  const GroupShape& shape = chunk.shapes[tile.group];
  GroupMean& mean = chunk.means[tile.group];
  const double unit = power_of_two(shape.grid_bits - grid_exponent(mean.largest));
  const int row = tile.first + static_cast<int>(threadIdx.x);
  const std::int64_t position = shape.begin + row;
  const std::int64_t mine = row < shape.n && chunk.counts(position)
                                ? weighted_integer(values[position] * unit, chunk.weights, position)
                                : 0;
  const std::int64_t sum = block_reduce(mine, Sum{}, shared);
  if (threadIdx.x == 0) ddkern::cuda::atomic_add(&mean.sum, sum);
}

__global__ void mean_kernel(ChunkTables chunk) {
  const int g = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (g >= chunk.n_groups) return;
  const GroupShape& shape = chunk.shapes[g];
  GroupMean& mean = chunk.means[g];
  mean.mean = static_cast<double>(mean.sum) / static_cast<double>(shape.total_units) *
              shape.mean_factor * power_of_two(grid_exponent(mean.largest) - shape.grid_bits);
}

void launch_largest(const ChunkTables& chunk, const double* values, Which which,
                    cudaStream_t stream) {
  DDKERN_CUDA_TRY(cudaMemsetAsync(
      chunk.means, 0, sizeof(GroupMean) * static_cast<std::size_t>(chunk.n_groups), stream));
  DDKERN_LAUNCH(largest_kernel, chunk.n_tiles, kTileRows, 0, stream, chunk, values, which);
}

}  // namespace

void find_largest(const ChunkTables& chunk, const double* values, cudaStream_t stream) {
  launch_largest(chunk, values, Which::all, stream);
}

void find_means(const ChunkTables& chunk, const double* values, Which which, cudaStream_t stream) {
  launch_largest(chunk, values, which, stream);
  DDKERN_LAUNCH(sum_kernel, chunk.n_tiles, kTileRows, 0, stream, chunk, values, which);
  DDKERN_LAUNCH(mean_kernel, blocks_for(chunk.n_groups, kTileRows), kTileRows, 0, stream, chunk);
}

}  // namespace ddkern::kmeans::cuda
