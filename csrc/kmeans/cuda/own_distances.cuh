// SPDX-License-Identifier: Apache-2.0
// Distances of rows to the centroids that they are assigned to: what repairs look for, and what the
// distortion is where cells are small beside the spread of a group.
#pragma once

#include "kmeans/cuda/arithmetic.cuh"

namespace ddkern::kmeans::cuda {

constexpr int kThreads = 256;  // of blocks that go through a group

// d64 of every row to the centroid it is assigned to, and to a row if that is nearer. By one block;
// all its threads call it.
template <class T>
__device__ void distances_to_own(const Chunk<T>& chunk, int g, double* largest) {
  const GroupShape& shape = chunk.shapes[g];
  const double scale = chunk.frames[g].scale;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t n_rounds = (shape.n + kThreads / kLanes - 1) / (kThreads / kLanes);
  double most = 0;
  for (std::int64_t round = 0; round < n_rounds; ++round) {
    const std::int64_t i = round * (kThreads / kLanes) + static_cast<int>(threadIdx.x) / kLanes;
    const std::int64_t position = shape.begin + (i < shape.n ? i : 0);
    const std::int64_t cell = shape.first_cell + chunk.assignment[position];
    const double distance =
        sq_distance(chunk.row(position), chunk.centroids + cell * chunk.n_features, scale,
                    chunk.n_features, lane);
    if (i >= shape.n) continue;
    if (lane == 0) chunk.distances[position] = distance;
    if (chunk.counts(position)) most = fmax(most, distance);
  }
  *largest = most;
}

}  // namespace ddkern::kmeans::cuda
