// SPDX-License-Identifier: Apache-2.0
// Exact nearest cells from approximate scores, in three steps, each asked only where the one before
// could not tell: scores with proven bounds, float64 distances with theirs, real arithmetic.
#pragma once

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

void forget_open_rows(const ChunkTables& chunk, cudaStream_t stream);

// Step 1 from kept scores, for the rows of some tiles of active groups.
void scan_scores(const ChunkTables& chunk, int first_tile, int n_tiles, cudaStream_t stream);

// Steps 2 and 3 for the rows that step 1 left open, of `most_rows`.
template <class T>
void settle_open_rows(const Chunk<T>& chunk, std::int64_t most_rows, int n_multiprocessors,
                      cudaStream_t stream);

// The cells of all rows, by row number.
void write_assignment(const ChunkTables& chunk, std::int64_t* assignment, cudaStream_t stream);

// The Euclidean distances (docs/numerics.md section 10) of every row to the cells that it is
// assigned to; both arrays [row number][n_nearest].
template <class T>
void write_distances(const Chunk<T>& chunk, int n_nearest, const std::int64_t* assignment,
                     double* distance, cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
