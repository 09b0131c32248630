// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime_api.h>

#include "core/cuda/device_report.h"

namespace ddkern::cuda {
namespace {

// Records the first failure in `report`; true when the call went well.
bool succeeded(cudaError_t status, DeviceReport& report) {
  if (status == cudaSuccess) return true;
  if (report.error_name.empty()) report.error_name = cudaGetErrorName(status);
  cudaGetLastError();  // the failure is in the report now; nobody else should trip over it
  return false;
}

}  // namespace

DeviceReport report_devices() {
  DeviceReport report;
  // The driver version is asked for first and whatever comes next: 0 is how a missing driver shows,
  // and cudaGetDeviceCount() alone cannot tell it from a driver that is too old.
  if (!succeeded(cudaRuntimeGetVersion(&report.runtime_version), report))
    report.runtime_version = 0;
  if (!succeeded(cudaDriverGetVersion(&report.driver_version), report)) report.driver_version = 0;

  int n_devices = 0;
  if (!succeeded(cudaGetDeviceCount(&n_devices), report)) return report;

  for (int device = 0; device < n_devices; ++device) {
    cudaDeviceProp properties;
    // Stops at the first failure, so that a position in the list stays the number of the device.
    if (!succeeded(cudaGetDeviceProperties(&properties, device), report)) break;
    DeviceDescription description;
    description.name = properties.name;
    description.compute_capability_major = properties.major;
    description.compute_capability_minor = properties.minor;
    description.total_memory = properties.totalGlobalMem;
    description.multiprocessors = properties.multiProcessorCount;
    report.devices.push_back(description);
  }
  return report;
}

}  // namespace ddkern::cuda
