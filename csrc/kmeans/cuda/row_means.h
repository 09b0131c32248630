// SPDX-License-Identifier: Apache-2.0
// The weighted mean of a value of every row of a group (docs/numerics.md sections 4 and 9). Blocks
// have tiles of rows, so that one large group is the work of the whole device.
#pragma once

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

// chunk.means[g].largest: of the values of the rows that count. None is negative.
void find_largest(const ChunkTables& chunk, const double* values, cudaStream_t stream);

// chunk.means of the groups that are asked for.
void find_means(const ChunkTables& chunk, const double* values, Which which, cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
