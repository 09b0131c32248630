// SPDX-License-Identifier: Apache-2.0
// Exact nearest cells from approximate scores, in three steps, each asked only where the one before
// could not tell: scores with proven bounds, float64 distances with theirs, real arithmetic.
#pragma once

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

// Assigns the rows of tiles [first_tile, first_tile + n_tiles) of active groups from chunk.scores.
template <class T>
void find_nearest(const Chunk<T>& chunk, int first_tile, int n_tiles, int n_multiprocessors,
                  cudaStream_t stream);

// For assign(): the cells of all rows and the Euclidean distances to them (docs/numerics.md section
// 10), or null, by row number.
template <class T>
void write_assignment(const Chunk<T>& chunk, std::int64_t* assignment, double* distance,
                      cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
