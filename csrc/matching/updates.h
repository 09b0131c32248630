// SPDX-License-Identifier: Apache-2.0
// Steps of optimisers over flat parameters: update/update.h is the arithmetic. Here vectors are cut
// into blocks, and blocks handed to threads: the same bits for any number of threads.
#pragma once

#include <cstdint>

#include "matching/update/update.h"

namespace ddkern::matching {

// At most n_threads threads, fewer where there is little to do.
void linear_update(const LinearBlock& whole, float alpha, float beta, int n_threads);
void momentum_update(const MomentumBlock& whole, float lr, float momentum, int n_threads);

// Every row of `whole`, which has n_rows [n], goes up by a step of length rho: its factor is rho
// over the root of its squares, of which the blocks are added in their order, rounded to float32; 0
// where the squares are 0.
void ascent_step(std::int64_t n_rows, const AscentBlock& whole, double rho, int n_threads);

}  // namespace ddkern::matching
