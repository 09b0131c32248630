// SPDX-License-Identifier: Apache-2.0
// The quantizer of kmeans/kmeans.h on a CUDA device: the same contract, the same bits. All pointers
// to rows, centroids and results are to memory of the device; Groups and options are on the host.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "kmeans/kmeans.h"

namespace ddkern::kmeans::cuda {

// Rows of T; row r begins at x + r * stride.
template <class T>
struct DeviceRows {
  const T* x;
  std::int64_t n_rows, n_features, stride;
};

struct DeviceCall {
  int device;
  void* stream;                                 // cudaStream_t
  std::function<void*(std::int64_t)> allocate;  // bytes of the device, kept until the call ends
  std::int64_t max_memory_in_bytes;
  Monitor* monitor;
  std::atomic<std::int64_t>* groups_done;
};

template <class T>
struct DeviceFit {
  T* centroids;              // out [sum k][n_features]
  double* mass;              // out [sum k]
  std::int64_t* assignment;  // out [n_rows] by row number: index within the group
  std::vector<GroupReport> reports;
};

// "sm_90" and so on.
std::string architecture(int device);

// As kmeans::fit(). Throws std::bad_alloc when max_memory_in_bytes cannot hold one group.
template <class T>
void fit(const DeviceRows<T>& rows, const Groups& groups, const FitOptions& options, const T* given,
         DeviceFit<T>& output, const DeviceCall& call);

// As kmeans::seed(): rows [sum k] on the device, potential [n_groups] on the host.
template <class T>
void seed(const DeviceRows<T>& rows, const Groups& groups, const FitOptions& options,
          std::int64_t* seeds, double* potential, const DeviceCall& call);

// As kmeans::assign(): assignment [n_rows][n_nearest], and distance the same or null. A group has
// at least n_nearest centroids.
template <class T>
void assign(const DeviceRows<T>& rows, const Groups& groups, const T* centroids,
            std::int64_t n_nearest, std::int64_t* assignment, double* distance,
            const DeviceCall& call);

}  // namespace ddkern::kmeans::cuda
