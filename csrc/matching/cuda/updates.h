// SPDX-License-Identifier: Apache-2.0
// Steps of optimisers on a GPU: matching/update/update.h is the contract, matching/updates.h says
// what becomes of whole vectors, and the bits are those of the CPU. As in
// matching/cuda/trajectory.h, nothing waits and nothing is allocated.
#pragma once

#include <cstdint>

#include "matching/cuda/trajectory.h"
#include "matching/update/update.h"

namespace ddkern::matching::cuda {

// A number that the host knows, or one that the device will know by then; rounded to float32.
struct Coefficient {
  double value;
  const double* at;  // [1] on the device, or null
};

void linear_update(const LinearBlock& whole, float alpha, const Coefficient& beta,
                   const DeviceCall& call);
void momentum_update(const MomentumBlock& whole, const Coefficient& lr, float momentum,
                     const DeviceCall& call);

// Doubles of workspace that ascent_step() takes for n_rows rows of n values.
std::int64_t ascent_workspace(std::int64_t n_rows, std::int64_t n);
void ascent_step(std::int64_t n_rows, const AscentBlock& whole, double rho, double* workspace,
                 const DeviceCall& call);

}  // namespace ddkern::matching::cuda
