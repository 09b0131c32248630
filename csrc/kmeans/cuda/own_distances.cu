// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/own_distances.h"

#include "kmeans/cuda/own_distances.cuh"

namespace ddkern::kmeans::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) own_distances_kernel(Chunk<T> chunk, Which which) {
  const RowTile tile = chunk.tiles[blockIdx.x];
  if (!takes_part(chunk.runs[tile.group], which)) return;
  const std::int64_t n = chunk.shapes[tile.group].n, last = std::int64_t{tile.first} + kTileRows;
  distances_to_own(chunk, tile.group, tile.first, last < n ? last : n);
}

}  // namespace

template <class T>
void find_own_distances(const Chunk<T>& chunk, Which which, cudaStream_t stream) {
  DDKERN_LAUNCH(own_distances_kernel<T>, chunk.n_tiles, kThreads, 0, stream, chunk, which);
}

template void find_own_distances(const Chunk<float>&, Which, cudaStream_t);
template void find_own_distances(const Chunk<double>&, Which, cudaStream_t);

}  // namespace ddkern::kmeans::cuda
