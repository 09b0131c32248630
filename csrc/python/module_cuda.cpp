// SPDX-License-Identifier: Apache-2.0
//
// ddkern._cuda: what needs the CUDA runtime. It is a module of its own so that a wheel without it,
// or a machine on which it cannot be loaded, still imports ddkern.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include "core/cuda/device_report.h"
#include "python/bindings.h"

namespace py = pybind11;

namespace {

using Record = py::typing::Dict<py::str, py::object>;

Record describe(const ddkern::cuda::DeviceDescription& device) {
  Record record;
  record["name"] = device.name;
  record["compute_capability"] =
      py::make_tuple(device.compute_capability_major, device.compute_capability_minor);
  record["total_memory"] = device.total_memory;
  record["multiprocessors"] = device.multiprocessors;
  return record;
}

Record report() {
  ddkern::cuda::DeviceReport found;
  {
    py::gil_scoped_release release;  // the first call loads the driver library
    found = ddkern::cuda::report_devices();
  }
  py::list devices;
  for (const auto& device : found.devices) devices.append(describe(device));

  Record record;
  record["runtime_version"] = found.runtime_version;
  record["driver_version"] = found.driver_version;
  record["error_name"] = found.error_name;
  record["devices"] = devices;
  return record;
}

}  // namespace

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  m.doc() = "CUDA part of ddkern; present where the build found a working nvcc.";
  m.attr("__version__") = DDKERN_VERSION;
  m.def(
      "report", &report,
      "Driver, runtime and devices as the CUDA runtime sees them.\n\n"
      "Never raises for a machine without a GPU. Keys: ``runtime_version`` and ``driver_version``\n"
      "(13000 for CUDA 13.0; driver 0 means that there is none), ``error_name`` (empty when all\n"
      "went well) and ``devices``, a list of dictionaries with ``name``, ``compute_capability``,\n"
      "``total_memory`` in bytes and ``multiprocessors``.");
  ddkern::python::register_distribution_cuda(m);
  ddkern::python::register_gradient_cuda(m);
  ddkern::python::register_kmeans_cuda(m);
  ddkern::python::register_matching_cuda(m);
  ddkern::python::register_updates_cuda(m);
}
