// SPDX-License-Identifier: Apache-2.0
//
// What the CUDA runtime sees on this machine. Meant for bug reports and for choosing a device, so
// it answers on every machine: without a driver, with one that is too old, and without a device.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ddkern::cuda {

struct DeviceDescription {
  std::string name;
  int compute_capability_major = 0;
  int compute_capability_minor = 0;
  std::uint64_t total_memory = 0;  // bytes
  int multiprocessors = 0;
};

struct DeviceReport {
  int runtime_version = 0;  // 13000 for CUDA 13.0: the toolkit that this module was built with
  int driver_version = 0;   // the newest CUDA version that the driver serves; 0 without a driver
  std::string error_name;  // first error met, such as "cudaErrorNoDevice"; empty when all went well
  std::vector<DeviceDescription> devices;
};

// Asks the runtime once. Throws std::bad_alloc only; allocates nothing on a device, creates no
// context and leaves no error behind for the next caller of cudaGetLastError().
DeviceReport report_devices();

}  // namespace ddkern::cuda
