// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "core/error.h"
#include "matching/updates.h"
#include "python/bindings.h"
#include "python/typed_values.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

void linear(const py::array& x, const py::array& y, const py::array& out, float alpha, float beta,
            int n_threads) {
  const py::ssize_t n = x.size();
  const matching::LinearBlock whole{n, values_of<float>(x, {n}, false, "x"),
                                    values_of<float>(y, {n}, false, "y"),
                                    values_of<float>(out, {n}, true, "out")};
  const py::gil_scoped_release release;
  matching::linear_update(whole, alpha, beta, n_threads);
}

void momentum(const py::array& theta, const py::array& velocity, const py::array& gradient,
              const py::array& theta_out, const py::array& velocity_out, float lr, float momentum,
              int n_threads) {
  const py::ssize_t n = theta.size();
  const matching::MomentumBlock whole{n,
                                      values_of<float>(theta, {n}, false, "theta"),
                                      values_of<float>(velocity, {n}, false, "velocity"),
                                      values_of<float>(gradient, {n}, false, "gradient"),
                                      values_of<float>(theta_out, {n}, true, "theta_out"),
                                      values_of<float>(velocity_out, {n}, true, "velocity_out")};
  const py::gil_scoped_release release;
  matching::momentum_update(whole, lr, momentum, n_threads);
}

void ascent(const py::array& gradient, const std::optional<py::array>& size, const py::array& out,
            double rho, int n_threads) {
  if (gradient.ndim() != 2) throw InvalidArgument("gradient must have two axes");
  const py::ssize_t rows = gradient.shape(0), n = gradient.shape(1);
  const matching::AscentBlock whole{
      n, values_of<float>(gradient, {rows, n}, false, "gradient"),
      size ? values_of<float>(*size, {rows, n}, false, "size") : nullptr,
      values_of<float>(out, {rows, n}, true, "out")};
  const py::gil_scoped_release release;
  matching::ascent_step(rows, whole, rho, n_threads);
}

}  // namespace

void register_updates(py::module_& module) {
  module.def("linear_update", &linear, py::kw_only(), py::arg("x"), py::arg("y"), py::arg("out"),
             py::arg("alpha"), py::arg("beta"), py::arg("n_threads"),
             "alpha x + beta y into out: see ddkern.updates.");
  module.def("momentum_update", &momentum, py::kw_only(), py::arg("theta"), py::arg("velocity"),
             py::arg("gradient"), py::arg("theta_out"), py::arg("velocity_out"), py::arg("lr"),
             py::arg("momentum"), py::arg("n_threads"),
             "A step of SGD with momentum: see ddkern.updates.");
  module.def("ascent_step", &ascent, py::kw_only(), py::arg("gradient"), py::arg("size"),
             py::arg("out"), py::arg("rho"), py::arg("n_threads"),
             "Steps of length rho, a row each, into out: see ddkern.updates.");
}

}  // namespace ddkern::python
