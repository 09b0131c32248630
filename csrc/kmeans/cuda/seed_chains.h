// SPDX-License-Identifier: Apache-2.0
// d32 of rows to the candidates of a step of seeding, and what each candidate would gain: chains of
// float32 multiply-adds (docs/numerics.md sections 6 and 8).
#pragma once

#include "kmeans/cuda/seeding.h"

namespace ddkern::kmeans::cuda {

// To the first seed of every group, and the norms of all rows.
template <class T>
void take_first_chains(const Chunk<T>& chunk, const SeedTables& tables, cudaStream_t stream);

// Of all rows, to all candidates of a step.
template <class T>
void take_all_chains(const Chunk<T>& chunk, const SeedTables& tables, int step, int n_trials,
                     cudaStream_t stream);

// Of the items that are listed for a round, as many as the device finds there.
template <class T>
void take_listed_chains(const Chunk<T>& chunk, const SeedTables& tables, int round,
                        cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
