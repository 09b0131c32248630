// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "core/error.h"
#include "network/network.h"
#include "python/bindings.h"
#include "python/typed_values.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

using network::MapShape;
using network::NormReluPoolBackwardCall;
using network::NormReluPoolForwardCall;

MapShape map_shape(const py::array& x) {
  if (x.ndim() != 4 || x.shape(1) < 2 || x.shape(2) < 2) {
    throw InvalidArgument("x must be (n, height, width, channels) with sides of 2 or more");
  }
  return {x.shape(1), x.shape(2), x.shape(3)};
}

template <class T>
void forward_as(py::array x, py::array weight, py::array bias, float eps, py::array out,
                py::array mean, py::array rstd, int n_threads) {
  const MapShape shape = map_shape(x);
  const auto [h, w, c] = shape;
  const py::ssize_t n = x.shape(0);
  const NormReluPoolForwardCall<T> call{n,
                                        shape,
                                        eps,
                                        values_of<T>(x, {n, h, w, c}, false, "x"),
                                        values_of<float>(weight, {c}, false, "weight"),
                                        values_of<float>(bias, {c}, false, "bias"),
                                        values_of<T>(out, {n, h / 2, w / 2, c}, true, "out"),
                                        values_of<float>(mean, {n, c}, true, "mean"),
                                        values_of<float>(rstd, {n, c}, true, "rstd")};
  const py::gil_scoped_release release;
  network::norm_relu_pool_forward(call, n_threads);
}

template <class T>
void backward_as(py::array grad_out, py::array x, py::array mean, py::array rstd, py::array weight,
                 py::array bias, std::optional<py::array> grad_x, py::array grad_weight,
                 py::array grad_bias, int n_threads) {
  const MapShape shape = map_shape(x);
  const auto [h, w, c] = shape;
  const py::ssize_t n = x.shape(0);
  const NormReluPoolBackwardCall<T> call{
      n,
      shape,
      values_of<T>(grad_out, {n, h / 2, w / 2, c}, false, "grad_out"),
      values_of<T>(x, {n, h, w, c}, false, "x"),
      values_of<float>(mean, {n, c}, false, "mean"),
      values_of<float>(rstd, {n, c}, false, "rstd"),
      values_of<float>(weight, {c}, false, "weight"),
      values_of<float>(bias, {c}, false, "bias"),
      grad_x ? values_of<T>(*grad_x, {n, h, w, c}, true, "grad_x") : nullptr,
      values_of<float>(grad_weight, {c}, true, "grad_weight"),
      values_of<float>(grad_bias, {c}, true, "grad_bias")};
  const py::gil_scoped_release release;
  network::norm_relu_pool_backward(call, n_threads);
}

bool holds_bfloat16(const py::array& x) { return x.dtype().itemsize() == sizeof(Bfloat16); }

}  // namespace

void register_network(py::module_& module) {
  module.def(
      "norm_relu_pool_forward",
      [](const py::array& x, const py::array& weight, const py::array& bias, float eps,
         const py::array& out, const py::array& mean, const py::array& rstd, int n_threads) {
        (holds_bfloat16(x) ? forward_as<Bfloat16> : forward_as<float>)(x, weight, bias, eps, out,
                                                                       mean, rstd, n_threads);
      },
      py::kw_only(), py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("eps"),
      py::arg("out"), py::arg("mean"), py::arg("rstd"), py::arg("n_threads"),
      "Instance norm, ReLU and average pooling of maps (n, h, w, c): see ddkern.layers.");
  module.def(
      "norm_relu_pool_backward",
      [](const py::array& grad_out, const py::array& x, const py::array& mean,
         const py::array& rstd, const py::array& weight, const py::array& bias,
         const std::optional<py::array>& grad_x, const py::array& grad_weight,
         const py::array& grad_bias, int n_threads) {
        (holds_bfloat16(x) ? backward_as<Bfloat16>
                           : backward_as<float>)(grad_out, x, mean, rstd, weight, bias, grad_x,
                                                 grad_weight, grad_bias, n_threads);
      },
      py::kw_only(), py::arg("grad_out"), py::arg("x"), py::arg("mean"), py::arg("rstd"),
      py::arg("weight"), py::arg("bias"), py::arg("grad_x"), py::arg("grad_weight"),
      py::arg("grad_bias"), py::arg("n_threads"),
      "Gradients of norm_relu_pool_forward, which gave mean and rstd; grad_x may be None.");
}

}  // namespace ddkern::python
