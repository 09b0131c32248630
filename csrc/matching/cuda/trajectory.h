// SPDX-License-Identifier: Apache-2.0
// trajectory on a GPU: matching/trajectory/trajectory.h is the contract, and the bits are those of
// the CPU, whichever device it is.
//
// Everything is put into a stream of the caller: nothing waits for the device, nothing is
// allocated, and a stream that is being captured may be given. What is not a number may be another
// NaN than on the CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "matching/matching.h"

namespace ddkern::matching::cuda {

struct DeviceCall {
  int device;
  void* stream;  // cudaStream_t
};

// Doubles of workspace that the sums take for tensors of these sizes.
std::int64_t trajectory_workspace(const std::vector<std::int64_t>& sizes);

// T is float or Bfloat16. All tensors have a start, or none has. Pointers are to memory of the
// device: workspace, and sums [2, n_totals], to_target and of_start.
template <class T>
void trajectory_sums(const std::vector<TrajectoryBlock<T>>& tensors, const TotalOf& total_of,
                     std::int64_t n_totals, bool with_start, double* workspace, double* sums,
                     const DeviceCall& call);

// sums [n_totals]; starts are not looked at.
template <class T>
void absolute_sums(const std::vector<TrajectoryBlock<T>>& tensors, const TotalOf& total_of,
                   std::int64_t n_totals, double* workspace, double* sums, const DeviceCall& call);

// factors [n_totals] are rounded to float32. `out` may be a or b, and overlaps them in no other
// way.
template <class T>
void scaled_difference(const std::vector<DifferenceBlock<T>>& tensors, const TotalOf& total_of,
                       const double* factors, const DeviceCall& call);

}  // namespace ddkern::matching::cuda
