// SPDX-License-Identifier: Apache-2.0
// Steps of the seeding that float32 cannot serve: every row that is left seems to coincide with a
// seed. Rare, so a group is the work of one block, in float64.
#pragma once

#include "kmeans/cuda/seeding.h"

namespace ddkern::kmeans::cuda {

// The seed of `step` in the groups whose seeding says `slow`.
template <class T>
void take_slow_steps(const Chunk<T>& chunk, const SeedTables& tables, int step, unsigned restart,
                     cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
