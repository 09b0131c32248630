// SPDX-License-Identifier: Apache-2.0
// Distances of rows to the centroids that they are assigned to: what repairs look for, and what the
// distortion is where cells are small beside the spread of a group.
#pragma once

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

// chunk.distances of the groups that are asked for.
template <class T>
void find_own_distances(const Chunk<T>& chunk, Which which, cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
