// SPDX-License-Identifier: Apache-2.0
// Losses on device memory. Tensors come as addresses and sizes: whose memory it is, and that it is
// large enough, is the Python layer's to know (ddkern/kernel_calls.py).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "matching/cuda/trajectory.h"
#include "python/bindings.h"
#include "python/matching_arguments.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

using matching::TotalOf;

void sums(const Addresses& student, const Addresses& target, const std::optional<Addresses>& start,
          const Sizes& sizes, const TotalOf& total_of, std::int64_t n_totals, bool bfloat16,
          std::uintptr_t workspace, std::uintptr_t sums, int device, std::uintptr_t stream) {
  check_count(student, sizes, "student");
  check_count(target, sizes, "target");
  if (start) check_count(*start, sizes, "start");
  check_totals(total_of, n_totals, sizes);
  const py::gil_scoped_release release;
  const auto run = [&](const auto& tensors) {
    matching::cuda::trajectory_sums(tensors, total_of, n_totals, start.has_value(),
                                    pointer<double>(workspace), pointer<double>(sums),
                                    {device, pointer<void>(stream)});
  };
  if (bfloat16) {
    run(tensors_of<Bfloat16>(student, target, start, sizes));
  } else {
    run(tensors_of<float>(student, target, start, sizes));
  }
}

void absolute(const Addresses& student, const Addresses& target, const Sizes& sizes,
              const TotalOf& total_of, std::int64_t n_totals, bool bfloat16,
              std::uintptr_t workspace, std::uintptr_t sums, int device, std::uintptr_t stream) {
  check_count(student, sizes, "student");
  check_count(target, sizes, "target");
  check_totals(total_of, n_totals, sizes);
  const py::gil_scoped_release release;
  const auto run = [&](const auto& tensors) {
    matching::cuda::absolute_sums(tensors, total_of, n_totals, pointer<double>(workspace),
                                  pointer<double>(sums), {device, pointer<void>(stream)});
  };
  if (bfloat16) {
    run(tensors_of<Bfloat16>(student, target, std::nullopt, sizes));
  } else {
    run(tensors_of<float>(student, target, std::nullopt, sizes));
  }
}

void difference(const Addresses& a, const Addresses& b, const Addresses& out, const Sizes& sizes,
                const TotalOf& total_of, std::int64_t n_totals, bool bfloat16,
                std::uintptr_t factors, int device, std::uintptr_t stream) {
  check_count(a, sizes, "a");
  check_count(b, sizes, "b");
  check_count(out, sizes, "out");
  check_totals(total_of, n_totals, sizes);
  const py::gil_scoped_release release;
  const auto run = [&](const auto& tensors) {
    matching::cuda::scaled_difference(tensors, total_of, pointer<const double>(factors),
                                      {device, pointer<void>(stream)});
  };
  if (bfloat16) {
    run(differences_of<Bfloat16>(a, b, out, sizes));
  } else {
    run(differences_of<float>(a, b, out, sizes));
  }
}

}  // namespace

void register_matching_cuda(py::module_& module) {
  module.def("trajectory_workspace", &matching::cuda::trajectory_workspace, py::kw_only(),
             py::arg("sizes"), "Doubles of workspace that trajectory_sums and absolute_sums take.");
  module.def("trajectory_sums", &sums, py::kw_only(), py::arg("student"), py::arg("target"),
             py::arg("start"), py::arg("sizes"), py::arg("total_of"), py::arg("n_totals"),
             py::arg("bfloat16"), py::arg("workspace"), py::arg("sums"), py::arg("device"),
             py::arg("stream"),
             "Sums of (student - target)^2 and (start - target)^2: see ddkern.losses.");
  module.def("absolute_sums", &absolute, py::kw_only(), py::arg("student"), py::arg("target"),
             py::arg("sizes"), py::arg("total_of"), py::arg("n_totals"), py::arg("bfloat16"),
             py::arg("workspace"), py::arg("sums"), py::arg("device"), py::arg("stream"),
             "Sums of |student - target|: see ddkern.losses.");
  module.def("scaled_difference", &difference, py::kw_only(), py::arg("a"), py::arg("b"),
             py::arg("out"), py::arg("sizes"), py::arg("total_of"), py::arg("n_totals"),
             py::arg("bfloat16"), py::arg("factors"), py::arg("device"), py::arg("stream"),
             "factors[total] * (a - b) into out; factors are float64: see ddkern.losses.");
}

}  // namespace ddkern::python
