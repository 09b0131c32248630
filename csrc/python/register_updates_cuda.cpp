// SPDX-License-Identifier: Apache-2.0
// Steps of optimisers on device memory: addresses, as in register_matching_cuda.cpp.
#include <pybind11/pybind11.h>

#include <cstdint>

#include "matching/cuda/updates.h"
#include "python/addresses.h"
#include "python/bindings.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

void linear(std::int64_t n, std::uintptr_t x, std::uintptr_t y, std::uintptr_t out, float alpha,
            double beta, std::uintptr_t beta_at, int device, std::uintptr_t stream) {
  const py::gil_scoped_release release;
  matching::cuda::linear_update(
      {n, pointer<const float>(x), pointer<const float>(y), pointer<float>(out)}, alpha,
      {beta, pointer<const double>(beta_at)}, {device, pointer<void>(stream)});
}

void momentum(std::int64_t n, std::uintptr_t theta, std::uintptr_t velocity,
              std::uintptr_t gradient, std::uintptr_t theta_out, std::uintptr_t velocity_out,
              double lr, std::uintptr_t lr_at, float momentum, int device, std::uintptr_t stream) {
  const py::gil_scoped_release release;
  matching::cuda::momentum_update(
      {n, pointer<const float>(theta), pointer<const float>(velocity),
       pointer<const float>(gradient), pointer<float>(theta_out), pointer<float>(velocity_out)},
      {lr, pointer<const double>(lr_at)}, momentum, {device, pointer<void>(stream)});
}

void ascent(std::int64_t n_rows, std::int64_t n, std::uintptr_t gradient, std::uintptr_t size,
            std::uintptr_t out, double rho, std::uintptr_t workspace, int device,
            std::uintptr_t stream) {
  const py::gil_scoped_release release;
  matching::cuda::ascent_step(
      n_rows, {n, pointer<const float>(gradient), pointer<const float>(size), pointer<float>(out)},
      rho, pointer<double>(workspace), {device, pointer<void>(stream)});
}

}  // namespace

void register_updates_cuda(py::module_& module) {
  module.def("linear_update", &linear, py::kw_only(), py::arg("n"), py::arg("x"), py::arg("y"),
             py::arg("out"), py::arg("alpha"), py::arg("beta"), py::arg("beta_at"),
             py::arg("device"), py::arg("stream"),
             "alpha x + beta y into out; beta is that at beta_at unless it is 0: see "
             "ddkern.updates.");
  module.def("momentum_update", &momentum, py::kw_only(), py::arg("n"), py::arg("theta"),
             py::arg("velocity"), py::arg("gradient"), py::arg("theta_out"),
             py::arg("velocity_out"), py::arg("lr"), py::arg("lr_at"), py::arg("momentum"),
             py::arg("device"), py::arg("stream"),
             "A step of SGD with momentum; lr is that at lr_at unless it is 0: see "
             "ddkern.updates.");
  module.def("ascent_workspace", &matching::cuda::ascent_workspace, py::kw_only(),
             py::arg("n_rows"), py::arg("n"), "Doubles of workspace that ascent_step takes.");
  module.def("ascent_step", &ascent, py::kw_only(), py::arg("n_rows"), py::arg("n"),
             py::arg("gradient"), py::arg("size"), py::arg("out"), py::arg("rho"),
             py::arg("workspace"), py::arg("device"), py::arg("stream"),
             "Steps of length rho, a row each, into out; size may be 0: see ddkern.updates.");
}

}  // namespace ddkern::python
