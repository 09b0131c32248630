// SPDX-License-Identifier: Apache-2.0
// What becomes of a group: whether it goes on, its distortion, and the masses
// (docs/numerics.md sections 9 and 10).
#pragma once

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

// The end of an update: shift, variance in the first, and the distortion of the partition, which
// goes to history [n_groups].
void conclude_update(const ChunkTables& chunk, bool first, double* history, cudaStream_t stream);

// The end of an iteration: which groups go on. Adds their number to n_active.
template <class T>
void conclude_iteration(const Chunk<T>& chunk, std::int64_t iteration, std::int64_t max_iter,
                        double tol, int* n_active, cudaStream_t stream);

// After the last iteration of all groups: the scaled distortion of every group.
template <class T>
void find_distortion(const Chunk<T>& chunk, cudaStream_t stream);

// The shares of the cells [cells].
void write_masses(const ChunkTables& chunk, double* mass, cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
