// SPDX-License-Identifier: Apache-2.0
// Scores in Gram space: <y_i, c> for a centroid that is a row or a mean of rows, from rows of the
// Gram matrix. A cell whose rows did not change keeps its scores.
#pragma once

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

// Scores of centroids that are rows: seeds [cells] of the group.
void score_rows(const ChunkTables& chunk, const std::int32_t* seeds, cudaStream_t stream);

// Scores of the cells that the last update changed.
void score_means(const ChunkTables& chunk, cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
