// SPDX-License-Identifier: Apache-2.0
// Losses on device memory. Tensors come as addresses and sizes: whose memory it is, and that it is
// large enough, is the Python layer's to know (ddkern/device_calls.py).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "matching/cuda/trajectory.h"
#include "python/bindings.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

using matching::DifferenceBlock;
using matching::TrajectoryBlock;
using matching::cuda::DeviceCall;
using Addresses = std::vector<std::uintptr_t>;
using Sizes = std::vector<std::int64_t>;

template <class V>
V* pointer(std::uintptr_t address) {
  return reinterpret_cast<V*>(address);
}

void check_count(const Addresses& addresses, const Sizes& sizes, const char* name) {
  if (addresses.size() != sizes.size()) {
    throw InvalidArgument(std::string(name) + " has another number of tensors than sizes");
  }
}

template <class T>
void sums_as(const Addresses& student, const Addresses& target,
             const std::optional<Addresses>& start, const Sizes& sizes, double* workspace,
             double* sums, const DeviceCall& call) {
  std::vector<TrajectoryBlock<T>> tensors;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    tensors.push_back({sizes[i], pointer<const T>(student[i]), pointer<const T>(target[i]),
                       start ? pointer<const T>((*start)[i]) : nullptr});
  }
  matching::cuda::trajectory_sums(tensors, start.has_value(), workspace, sums, call);
}

void sums(const Addresses& student, const Addresses& target, const std::optional<Addresses>& start,
          const Sizes& sizes, bool bfloat16, std::uintptr_t workspace, std::uintptr_t sums,
          int device, std::uintptr_t stream) {
  check_count(student, sizes, "student");
  check_count(target, sizes, "target");
  if (start) check_count(*start, sizes, "start");
  const py::gil_scoped_release release;
  (bfloat16 ? sums_as<Bfloat16> : sums_as<float>)(student, target, start, sizes,
                                                  pointer<double>(workspace), pointer<double>(sums),
                                                  {device, pointer<void>(stream)});
}

template <class T>
void absolute_as(const Addresses& student, const Addresses& target, const Sizes& sizes,
                 double* workspace, double* total, const DeviceCall& call) {
  std::vector<TrajectoryBlock<T>> tensors;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    tensors.push_back(
        {sizes[i], pointer<const T>(student[i]), pointer<const T>(target[i]), nullptr});
  }
  matching::cuda::absolute_sum(tensors, workspace, total, call);
}

void absolute(const Addresses& student, const Addresses& target, const Sizes& sizes, bool bfloat16,
              std::uintptr_t workspace, std::uintptr_t total, int device, std::uintptr_t stream) {
  check_count(student, sizes, "student");
  check_count(target, sizes, "target");
  const py::gil_scoped_release release;
  (bfloat16 ? absolute_as<Bfloat16>
            : absolute_as<float>)(student, target, sizes, pointer<double>(workspace),
                                  pointer<double>(total), {device, pointer<void>(stream)});
}

template <class T>
void difference_as(const Addresses& a, const Addresses& b, const Addresses& out, const Sizes& sizes,
                   const double* factor, const DeviceCall& call) {
  std::vector<DifferenceBlock<T>> tensors;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    tensors.push_back(
        {sizes[i], pointer<const T>(a[i]), pointer<const T>(b[i]), pointer<T>(out[i])});
  }
  matching::cuda::scaled_difference(tensors, factor, call);
}

void difference(const Addresses& a, const Addresses& b, const Addresses& out, const Sizes& sizes,
                bool bfloat16, std::uintptr_t factor, int device, std::uintptr_t stream) {
  check_count(a, sizes, "a");
  check_count(b, sizes, "b");
  check_count(out, sizes, "out");
  const py::gil_scoped_release release;
  (bfloat16 ? difference_as<Bfloat16> : difference_as<float>)(a, b, out, sizes,
                                                              pointer<const double>(factor),
                                                              {device, pointer<void>(stream)});
}

}  // namespace

void register_matching_cuda(py::module_& module) {
  module.def("trajectory_workspace", &matching::cuda::trajectory_workspace, py::kw_only(),
             py::arg("sizes"), "Doubles of workspace that trajectory_sums and absolute_sum take.");
  module.def("trajectory_sums", &sums, py::kw_only(), py::arg("student"), py::arg("target"),
             py::arg("start"), py::arg("sizes"), py::arg("bfloat16"), py::arg("workspace"),
             py::arg("sums"), py::arg("device"), py::arg("stream"),
             "Sums of (student - target)^2 and (start - target)^2: see ddkern.losses.");
  module.def("absolute_sum", &absolute, py::kw_only(), py::arg("student"), py::arg("target"),
             py::arg("sizes"), py::arg("bfloat16"), py::arg("workspace"), py::arg("total"),
             py::arg("device"), py::arg("stream"),
             "The sum of |student - target|: see ddkern.losses.");
  module.def("scaled_difference", &difference, py::kw_only(), py::arg("a"), py::arg("b"),
             py::arg("out"), py::arg("sizes"), py::arg("bfloat16"), py::arg("factor"),
             py::arg("device"), py::arg("stream"),
             "factor * (a - b) into out; factor is one float64: see ddkern.losses.");
}

}  // namespace ddkern::python
