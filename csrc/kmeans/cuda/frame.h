// SPDX-License-Identifier: Apache-2.0
// Rows in canonical form (docs/numerics.md sections 1 to 4) and packed for the products.
#pragma once

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

// Magnitudes, whether every value is finite, and the scale that follows.
template <class T>
void survey_rows(const Chunk<T>& chunk, cudaStream_t stream);

// Centres, packed rows with their bounds and hashes, and the rest of the frames.
template <class T>
void pack_rows(const Chunk<T>& chunk, cudaStream_t stream);

// For assign(): frames around the means of the cells, wide enough for the surveyed rows. Any frame
// is correct.
template <class T>
void frame_cells(const Chunk<T>& chunk, cudaStream_t stream);

// Packs the rows in frames that are there already.
template <class T>
void pack_rows_in_frame(const Chunk<T>& chunk, cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
