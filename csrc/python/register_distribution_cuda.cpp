// SPDX-License-Identifier: Apache-2.0
// Losses between sets of features on device memory: addresses, as in register_matching_cuda.cpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "matching/cuda/distribution.h"
#include "python/addresses.h"
#include "python/bindings.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

using matching::cuda::Rates;

void means(std::uintptr_t values, std::uintptr_t labels, std::int64_t n_rows,
           std::int64_t n_features, std::int64_t n_classes, std::uintptr_t workspace,
           std::uintptr_t out, int device, std::uintptr_t stream) {
  const py::gil_scoped_release release;
  matching::cuda::segment_means({n_rows, n_features, n_classes, pointer<const float>(values),
                                 pointer<const std::int64_t>(labels)},
                                pointer<double>(workspace), pointer<double>(out),
                                {device, pointer<void>(stream)});
}

// Those at an address, unless it is 0, and then these.
Rates rates_of(const std::vector<double>& values, std::uintptr_t at, int n_at) {
  Rates rates = {};
  if (at != 0) {
    rates.n = n_at;
    rates.at = pointer<const double>(at);
    return rates;
  }
  if (values.size() > matching::cuda::kMostRates) {
    throw InvalidArgument("rates has more numbers than one call can name");
  }
  rates.n = static_cast<int>(values.size());
  std::copy(values.begin(), values.end(), rates.value);
  return rates;
}

void mmd(std::uintptr_t x, std::uintptr_t y, std::int64_t n, std::int64_t m,
         std::int64_t n_features, const std::vector<double>& rates, std::uintptr_t rates_at,
         int n_rates_at, std::uintptr_t workspace, std::uintptr_t out, int device,
         std::uintptr_t stream) {
  const Rates of_kernel = rates_of(rates, rates_at, n_rates_at);
  const py::gil_scoped_release release;
  matching::cuda::mmd_means({n, pointer<const float>(x)}, {m, pointer<const float>(y)}, n_features,
                            of_kernel, pointer<double>(workspace), pointer<double>(out),
                            {device, pointer<void>(stream)});
}

void pull(std::uintptr_t x, std::uintptr_t y, std::int64_t n, std::int64_t m,
          std::int64_t n_features, const std::vector<double>& rates, std::uintptr_t rates_at,
          int n_rates_at, std::uintptr_t own, std::uintptr_t cross, std::uintptr_t workspace,
          std::uintptr_t out, int device, std::uintptr_t stream) {
  const Rates of_kernel = rates_of(rates, rates_at, n_rates_at);
  const py::gil_scoped_release release;
  matching::cuda::mmd_pull({n, pointer<const float>(x)}, {m, pointer<const float>(y)}, n_features,
                           of_kernel, pointer<const double>(own), pointer<const double>(cross),
                           pointer<double>(workspace), pointer<float>(out),
                           {device, pointer<void>(stream)});
}

}  // namespace

void register_distribution_cuda(py::module_& module) {
  module.def("segment_workspace", &matching::cuda::segment_workspace, py::kw_only(),
             py::arg("n_rows"), py::arg("n_classes"),
             "Doubles of workspace that segment_means takes.");
  module.def("segment_means", &means, py::kw_only(), py::arg("values"), py::arg("labels"),
             py::arg("n_rows"), py::arg("n_features"), py::arg("n_classes"), py::arg("workspace"),
             py::arg("out"), py::arg("device"), py::arg("stream"),
             "Means of the rows of each class into out: see ddkern.losses.");
  module.def("mmd_workspace", &matching::cuda::mmd_workspace, py::kw_only(), py::arg("n"),
             py::arg("m"), "Doubles of workspace that mmd_means takes.");
  module.def("mmd_means", &mmd, py::kw_only(), py::arg("x"), py::arg("y"), py::arg("n"),
             py::arg("m"), py::arg("n_features"), py::arg("rates"), py::arg("rates_at"),
             py::arg("n_rates_at"), py::arg("workspace"), py::arg("out"), py::arg("device"),
             py::arg("stream"),
             "Means of a kernel over pairs of x, of x and y, and of y, into out; rates are those "
             "at rates_at unless it is 0: see ddkern.losses.");
  module.def("pull_workspace", &matching::cuda::pull_workspace, py::kw_only(), py::arg("n"),
             py::arg("m"), "Doubles of workspace that mmd_pull takes.");
  module.def("mmd_pull", &pull, py::kw_only(), py::arg("x"), py::arg("y"), py::arg("n"),
             py::arg("m"), py::arg("n_features"), py::arg("rates"), py::arg("rates_at"),
             py::arg("n_rates_at"), py::arg("own"), py::arg("cross"), py::arg("workspace"),
             py::arg("out"), py::arg("device"), py::arg("stream"),
             "The derivative of such means by x into out, with factors in device memory: see "
             "ddkern.losses.");
}

}  // namespace ddkern::python
