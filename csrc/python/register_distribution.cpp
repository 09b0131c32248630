// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <tuple>

#include "core/error.h"
#include "matching/distribution.h"
#include "python/bindings.h"
#include "python/typed_values.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

using matching::MmdKernel;
using matching::PointSet;

py::ssize_t size_of(const py::array& array, py::ssize_t axis, py::ssize_t n_axes,
                    const char* name) {
  if (array.ndim() != n_axes) {
    throw InvalidArgument(std::string(name) + " has another number of axes than it must");
  }
  return array.shape(axis);
}

void segment_means(const py::array& values, const py::array& labels, const py::array& counts,
                   const py::array& out, int n_threads) {
  const py::ssize_t n = size_of(values, 0, 2, "values"), d = size_of(values, 1, 2, "values");
  const py::ssize_t n_classes = size_of(counts, 0, 1, "counts");
  const matching::SegmentCall call{n,
                                   d,
                                   n_classes,
                                   values_of<float>(values, {n, d}, false, "values"),
                                   values_of<std::int64_t>(labels, {n}, false, "labels"),
                                   values_of<std::int64_t>(counts, {n_classes}, false, "counts"),
                                   values_of<double>(out, {n_classes, d}, true, "out")};
  for (py::ssize_t i = 0; i < n; ++i) {
    if (call.labels[i] < 0 || call.labels[i] >= n_classes) {
      throw InvalidArgument("labels holds a number that is no class");
    }
  }
  const py::gil_scoped_release release;
  matching::segment_means(call, n_threads);
}

PointSet points_of(const py::array& array, py::ssize_t n_features, const char* name) {
  const py::ssize_t n = size_of(array, 0, 2, name);
  return {n, values_of<float>(array, {n, n_features}, false, name)};
}

MmdKernel kernel_of(const py::array& x, const py::array& rates) {
  const py::ssize_t n_rates = size_of(rates, 0, 1, "rates");
  return {size_of(x, 1, 2, "x"), n_rates, values_of<double>(rates, {n_rates}, false, "rates")};
}

}  // namespace

void register_distribution(py::module_& module) {
  module.def("segment_means", &segment_means, py::kw_only(), py::arg("values"), py::arg("labels"),
             py::arg("counts"), py::arg("out"), py::arg("n_threads"),
             "Means of the rows of each class into out: see ddkern.losses.");
  module.def(
      "mmd_means",
      [](const py::array& x, const py::array& y, const py::array& rates, int n_threads) {
        const MmdKernel kernel = kernel_of(x, rates);
        const PointSet of_x = points_of(x, kernel.n_features, "x");
        const PointSet of_y = points_of(y, kernel.n_features, "y");
        const py::gil_scoped_release release;
        const auto means = matching::mmd_means(of_x, of_y, kernel, n_threads);
        return std::make_tuple(means.xx, means.xy, means.yy);
      },
      py::kw_only(), py::arg("x"), py::arg("y"), py::arg("rates"), py::arg("n_threads"),
      "Means of a kernel over pairs of x, of x and y, and of y: see ddkern.losses.");
  module.def(
      "mmd_pull",
      [](const py::array& x, const py::array& y, const py::array& rates, double own, double cross,
         const py::array& out, int n_threads) {
        const MmdKernel kernel = kernel_of(x, rates);
        const PointSet of_x = points_of(x, kernel.n_features, "x");
        const PointSet of_y = points_of(y, kernel.n_features, "y");
        float* const to = values_of<float>(out, {of_x.n, kernel.n_features}, true, "out");
        const py::gil_scoped_release release;
        matching::mmd_pull(of_x, of_y, kernel, own, cross, to, n_threads);
      },
      py::kw_only(), py::arg("x"), py::arg("y"), py::arg("rates"), py::arg("own"), py::arg("cross"),
      py::arg("out"), py::arg("n_threads"),
      "The derivative of such means by x into out: see ddkern.losses.");
}

}  // namespace ddkern::python
