// SPDX-License-Identifier: Apache-2.0
// From one assignment to the next centroids (docs/numerics.md sections 5 and 9).
#pragma once

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

// How finish_cells() finds a cell's centroid.
enum class Finish {
  as_is,   // given or a seed: pack it
  move,    // the mean of its rows, or the row that it was seeded again with
  report,  // it stays; only the mean of its rows is wanted
};

// After find_nearest(): masses and members of the cells, and which rows come and go.
void count_moves(const ChunkTables& chunk, cudaStream_t stream);

// Brings the sums up to date with the last assignment. Also for groups that have ended, whose last
// moves are not in the sums yet.
template <class T>
void update_sums(const Chunk<T>& chunk, bool also_ended, cudaStream_t stream);

// Rows for cells without mass.
template <class T>
void repair_cells(const Chunk<T>& chunk, cudaStream_t stream);

// In Gram space products are of rows, and their bounds differ: `gram` says so for Finish::move.
template <class T>
void finish_cells(const Chunk<T>& chunk, Finish how, bool gram, double product_error,
                  cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
