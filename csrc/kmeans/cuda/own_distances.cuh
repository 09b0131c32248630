// SPDX-License-Identifier: Apache-2.0
// Distances of rows to the centroids that they are assigned to, by one block.
#pragma once

#include "kmeans/cuda/arithmetic.cuh"

namespace ddkern::kmeans::cuda {

constexpr int kThreads = 256;  // of blocks that go through rows or cells

// d64 of rows [first, last) of a group to their own centroids, into chunk.distances. Returns the
// largest that the thread saw of a row that counts. All threads of the block call it.
template <class T>
__device__ double distances_to_own(const Chunk<T>& chunk, int g, std::int64_t first,
                                   std::int64_t last) {
  const GroupShape& shape = chunk.shapes[g];
  const double scale = chunk.frames[g].scale;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  constexpr int kRowsAtOnce = kThreads / kLanes;
  double most = 0;
  for (; first < last; first += kRowsAtOnce) {
    const std::int64_t i = first + static_cast<int>(threadIdx.x) / kLanes;
    const std::int64_t position = shape.begin + (i < last ? i : first);
    const std::int64_t cell = shape.first_cell + chunk.assignment[position];
    const double distance =
        sq_distance(chunk.row(position), chunk.centroids + cell * chunk.n_features, scale,
                    chunk.n_features, lane);
    if (i >= last) continue;
    if (lane == 0) chunk.distances[position] = distance;
    if (chunk.counts(position)) most = fmax(most, distance);
  }
  return most;
}

}  // namespace ddkern::kmeans::cuda
