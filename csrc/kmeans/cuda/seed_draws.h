// SPDX-License-Identifier: Apache-2.0
// What frames a step of the seeding (docs/numerics.md sections 7 and 8): a seed is taken, and rows
// are drawn with probabilities in proportion to their masses. Blocks have tiles of rows, and one
// block a group draws from the sums of its tiles, so that one large group is the work of the whole
// device.
#pragma once

#include "kmeans/cuda/seeding.h"

namespace ddkern::kmeans::cuda {

// No row is taken, and none has a distance.
void start_seeding(const ChunkTables& chunk, const SeedTables& tables, cudaStream_t stream);

// The seed of `step`, from the masses of the rows that equal no seed, or of all if there are none.
void draw_untaken(const ChunkTables& chunk, const SeedTables& tables, int step, unsigned restart,
                  cudaStream_t stream);

// Rows that equal the seed of step - 1 are taken. With `chosen`, the distances of the trial that
// won become the rows' own where they are less; with `listed` these are of the open rows alone.
template <class T>
void end_step(const Chunk<T>& chunk, const SeedTables& tables, int step, bool chosen, bool listed,
              cudaStream_t stream);

// The potential after step - 1, and the candidates of `step` in the groups that have that step.
void draw_candidates(const ChunkTables& chunk, const SeedTables& tables, int step, unsigned restart,
                     cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
