// SPDX-License-Identifier: Apache-2.0
// The quantizer on device memory. Rows and results come as addresses: whose memory it is, and that
// it is large enough, is the Python layer's to know (ddkern/kmeans/device.py).
#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "kmeans/cuda/quantizer.h"
#include "python/addresses.h"
#include "python/bindings.h"
#include "python/kmeans_arguments.h"

namespace ddkern::python {
namespace {

using kmeans::cuda::DeviceFit;
using kmeans::cuda::DeviceRows;

template <class T>
DeviceRows<T> device_rows(std::uintptr_t x, std::int64_t n_rows, std::int64_t n_features,
                          std::int64_t stride) {
  return {pointer<const T>(x), n_rows, n_features, stride};
}

// `allocate` is Python's, called without the GIL.
kmeans::cuda::DeviceCall device_call(int device, std::uintptr_t stream, const py::object& allocate,
                                     std::int64_t max_memory, Attendant& attendant) {
  kmeans::cuda::DeviceCall call;
  call.device = device;
  call.stream = pointer<void>(stream);
  call.allocate = [allocate](std::int64_t bytes) {
    const py::gil_scoped_acquire acquire;
    return pointer<void>(allocate(bytes).cast<std::uintptr_t>());
  };
  call.max_memory_in_bytes = max_memory;
  call.monitor = &attendant.monitor();
  call.groups_done = &attendant.groups_done();
  return call;
}

template <class T>
py::dict fit_as(const DeviceRows<T>& rows, const Groups& groups, const FitOptions& options,
                std::uintptr_t given, std::uintptr_t centroids, std::uintptr_t mass,
                std::uintptr_t assignment, const kmeans::cuda::DeviceCall& call,
                Attendant& attendant) {
  DeviceFit<T> output{
      pointer<T>(centroids), pointer<double>(mass), pointer<std::int64_t>(assignment), {}};
  {
    const py::gil_scoped_release release;
    kmeans::cuda::fit(rows, groups, options, pointer<const T>(given), output, call);
  }
  attendant.finish();
  py::dict result = describe_fit(output.reports, "float16");
  result["isa"] = kmeans::cuda::architecture(call.device);
  result["n_threads"] = 0;
  return result;
}

py::dict fit(std::uintptr_t x, bool float64, std::int64_t n_rows, std::int64_t n_features,
             std::int64_t row_stride, std::optional<Int64s> order, Int64s offsets, Int64s k,
             Int64s group_ids, UInt64s seeds, std::optional<Doubles> sample_weight,
             const std::string& init, std::uintptr_t init_centroids, int n_init,
             std::int64_t max_iter, double tol, const std::string& algorithm,
             std::int64_t max_memory, int device, std::uintptr_t stream, const py::object& allocate,
             std::uintptr_t centroids, std::uintptr_t mass, std::uintptr_t assignment,
             const py::object& progress) {
  const GroupArrays arrays{std::move(order),     std::move(offsets), std::move(k),
                           std::move(group_ids), std::move(seeds),   std::move(sample_weight)};
  const Groups groups = arrays.view(n_rows);
  FitOptions options;
  options.init = parse_init(init);
  options.n_init = n_init;
  options.max_iter = max_iter;
  options.tol = tol;
  options.algorithm = parse_algorithm(algorithm);
  Attendant attendant(progress, groups.n_groups);
  const kmeans::cuda::DeviceCall call =
      device_call(device, stream, allocate, max_memory, attendant);
  if (float64) {
    return fit_as(device_rows<double>(x, n_rows, n_features, row_stride), groups, options,
                  init_centroids, centroids, mass, assignment, call, attendant);
  }
  return fit_as(device_rows<float>(x, n_rows, n_features, row_stride), groups, options,
                init_centroids, centroids, mass, assignment, call, attendant);
}

py::dict seed(std::uintptr_t x, bool float64, std::int64_t n_rows, std::int64_t n_features,
              std::int64_t row_stride, std::optional<Int64s> order, Int64s offsets, Int64s k,
              Int64s group_ids, UInt64s seeds, std::optional<Doubles> sample_weight,
              const std::string& init, const std::string& algorithm, std::int64_t max_memory,
              int device, std::uintptr_t stream, const py::object& allocate, std::uintptr_t rows,
              const py::object& progress) {
  const GroupArrays arrays{std::move(order),     std::move(offsets), std::move(k),
                           std::move(group_ids), std::move(seeds),   std::move(sample_weight)};
  const Groups groups = arrays.view(n_rows);
  FitOptions options;
  options.init = parse_init(init);
  if (options.init == Init::array) throw InvalidArgument("init must be 'k-means++' or 'random'");
  options.algorithm = parse_algorithm(algorithm);
  py::array_t<double> potential(groups.n_groups);
  double* potential_out = potential.mutable_data();
  Attendant attendant(progress, groups.n_groups);
  const kmeans::cuda::DeviceCall call =
      device_call(device, stream, allocate, max_memory, attendant);
  {
    const py::gil_scoped_release release;
    auto* out = pointer<std::int64_t>(rows);
    if (float64) {
      kmeans::cuda::seed(device_rows<double>(x, n_rows, n_features, row_stride), groups, options,
                         out, potential_out, call);
    } else {
      kmeans::cuda::seed(device_rows<float>(x, n_rows, n_features, row_stride), groups, options,
                         out, potential_out, call);
    }
  }
  attendant.finish();
  py::dict result;
  result["potential"] = potential;
  return result;
}

py::dict assign(std::uintptr_t x, bool float64, std::int64_t n_rows, std::int64_t n_features,
                std::int64_t row_stride, std::optional<Int64s> order, Int64s offsets,
                std::uintptr_t centroids, Int64s k, std::int64_t n_nearest, bool return_distance,
                std::int64_t max_memory, int device, std::uintptr_t stream,
                const py::object& allocate, std::uintptr_t assignment, std::uintptr_t distance,
                const py::object& progress) {
  const std::int64_t n_groups = offsets.size() - 1;
  Int64s ids(std::max<std::int64_t>(n_groups, 0));
  UInt64s seeds(std::max<std::int64_t>(n_groups, 0));
  std::fill(ids.mutable_data(), ids.mutable_data() + ids.size(), 0);
  std::fill(seeds.mutable_data(), seeds.mutable_data() + seeds.size(), 0);
  const GroupArrays arrays{std::move(order), std::move(offsets), std::move(k), ids, seeds, {}};
  const Groups groups = arrays.view(n_rows);
  check_n_nearest(n_nearest, groups);
  Attendant attendant(progress, groups.n_groups);
  const kmeans::cuda::DeviceCall call =
      device_call(device, stream, allocate, max_memory, attendant);
  {
    const py::gil_scoped_release release;
    auto* out = pointer<std::int64_t>(assignment);
    auto* distances = return_distance ? pointer<double>(distance) : nullptr;
    if (float64) {
      kmeans::cuda::assign(device_rows<double>(x, n_rows, n_features, row_stride), groups,
                           pointer<const double>(centroids), n_nearest, out, distances, call);
    } else {
      kmeans::cuda::assign(device_rows<float>(x, n_rows, n_features, row_stride), groups,
                           pointer<const float>(centroids), n_nearest, out, distances, call);
    }
  }
  attendant.finish();
  return py::dict();
}

}  // namespace

void register_kmeans_cuda(py::module_& module) {
  module.def("fit", &fit, py::kw_only(), py::arg("x"), py::arg("float64"), py::arg("n_rows"),
             py::arg("n_features"), py::arg("row_stride"), py::arg("order"), py::arg("offsets"),
             py::arg("k"), py::arg("group_ids"), py::arg("seeds"), py::arg("sample_weight"),
             py::arg("init"), py::arg("init_centroids"), py::arg("n_init"), py::arg("max_iter"),
             py::arg("tol"), py::arg("algorithm"), py::arg("max_memory"), py::arg("device"),
             py::arg("stream"), py::arg("allocate"), py::arg("centroids"), py::arg("mass"),
             py::arg("assignment"), py::arg("progress"),
             "k-means over groups of rows in device memory: see ddkern.quantize.");
  module.def("seed", &seed, py::kw_only(), py::arg("x"), py::arg("float64"), py::arg("n_rows"),
             py::arg("n_features"), py::arg("row_stride"), py::arg("order"), py::arg("offsets"),
             py::arg("k"), py::arg("group_ids"), py::arg("seeds"), py::arg("sample_weight"),
             py::arg("init"), py::arg("algorithm"), py::arg("max_memory"), py::arg("device"),
             py::arg("stream"), py::arg("allocate"), py::arg("rows"), py::arg("progress"),
             "Seeds alone: see ddkern.seed_centroids.");
  module.def("assign", &assign, py::kw_only(), py::arg("x"), py::arg("float64"), py::arg("n_rows"),
             py::arg("n_features"), py::arg("row_stride"), py::arg("order"), py::arg("offsets"),
             py::arg("centroids"), py::arg("k"), py::arg("n_nearest"), py::arg("return_distance"),
             py::arg("max_memory"), py::arg("device"), py::arg("stream"), py::arg("allocate"),
             py::arg("assignment"), py::arg("distance"), py::arg("progress"),
             "The nearest centroids of every row: see ddkern.assign.");
}

}  // namespace ddkern::python
