// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/isa.h"
#include "kmeans/cost_model.h"
#include "kmeans/kmeans.h"
#include "python/array_cast.h"
#include "python/bindings.h"
#include "python/kmeans_arguments.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

kmeans::FastFormat parse_format(const std::string& name) {
  for (const auto format :
       {kmeans::FastFormat::f32, kmeans::FastFormat::bf16, kmeans::FastFormat::bytes}) {
    if (name == name_of(format)) return format;
  }
  throw InvalidArgument("fastest is '" + name + "'; it must be float32, bfloat16 or bytes");
}

// The values of an array as T, contiguous and aligned.
template <class T>
py::array_t<T> converted(const py::object& array, std::int64_t size, const char* name) {
  constexpr int kAligned = 0x0100;  // NPY_ARRAY_ALIGNED: a view may start at any byte
  auto values = py::array_t<T, py::array::c_style | kAligned>::ensure(array);
  if (!values || values.size() != size) {
    throw InvalidArgument(std::string(name) + " must be (sum of k, n_features)");
  }
  return values;
}

Mislead asked_to_mislead() {
  const char* value = std::getenv("DDKERN_DEBUG_MISLEAD");
  const std::string asked = value != nullptr ? value : "";
  if (asked == "closer") return Mislead::closer;
  return asked == "apart" ? Mislead::apart : Mislead::no;
}

template <class T>
py::dict fit_as(const RowSource& source, const Groups& groups, std::int64_t total_k,
                const FitOptions& options, const py::object& init_centroids,
                const py::object& progress) {
  const std::int64_t n_features = source.n_features();
  py::array_t<T> centroids({total_k, n_features});
  py::array_t<T> given;
  if (options.init == Init::array) {
    given = converted<T>(init_centroids, total_k * n_features, "init_centroids");
  }
  py::array_t<double> mass(total_k);
  Int64s assignment(source.n_rows);
  kmeans::FitOutput<T> output{
      centroids.mutable_data(), mass.mutable_data(), assignment.mutable_data(), {}};
  Attendant attendant(progress, groups.n_groups);
  {
    const py::gil_scoped_release release;
    kmeans::fit(source, groups, options, given.data(), output, attendant.monitor(),
                attendant.groups_done());
  }
  attendant.finish();
  py::dict result = describe_fit(output.reports);
  result["centroids"] = centroids;
  result["mass"] = mass;
  result["assignment"] = assignment;
  result["isa"] = isa_name(active_isa());
  result["n_threads"] = safe_threads(options.n_threads);
  return result;
}

py::dict fit(const py::array& x, bool bfloat16, int batch_dims, std::optional<Int64s> order,
             Int64s offsets, Int64s k, Int64s group_ids, UInt64s seeds,
             std::optional<Doubles> sample_weight, const std::string& init,
             const py::object& init_centroids, int n_init, std::int64_t max_iter, double tol,
             const std::string& algorithm, int n_threads, std::int64_t max_memory,
             const py::object& progress) {
  const RowSource source = row_source(x, bfloat16, batch_dims);
  const GroupArrays arrays{std::move(order),     std::move(offsets), std::move(k),
                           std::move(group_ids), std::move(seeds),   std::move(sample_weight)};
  const Groups groups = arrays.view(source.n_rows);
  FitOptions options;
  options.init = parse_init(init);
  options.n_init = n_init;
  options.max_iter = max_iter;
  options.tol = tol;
  options.algorithm = parse_algorithm(algorithm);
  options.n_threads = n_threads;
  options.max_memory_in_bytes = max_memory;
  options.mislead = asked_to_mislead();
  const auto run = reads_as_double(source.dtype) ? &fit_as<double> : &fit_as<float>;
  return run(source, groups, arrays.total_k(), options, init_centroids, progress);
}

py::dict seed(const py::array& x, bool bfloat16, int batch_dims, std::optional<Int64s> order,
              Int64s offsets, Int64s k, Int64s group_ids, UInt64s seeds,
              std::optional<Doubles> sample_weight, const std::string& init,
              const std::string& algorithm, int n_threads, std::int64_t max_memory,
              const py::object& progress) {
  const RowSource source = row_source(x, bfloat16, batch_dims);
  const GroupArrays arrays{std::move(order),     std::move(offsets), std::move(k),
                           std::move(group_ids), std::move(seeds),   std::move(sample_weight)};
  const Groups groups = arrays.view(source.n_rows);
  FitOptions options;
  options.init = parse_init(init);
  if (options.init == Init::array) throw InvalidArgument("init must be 'k-means++' or 'random'");
  options.algorithm = parse_algorithm(algorithm);
  options.mislead = asked_to_mislead();
  options.n_threads = n_threads;
  options.max_memory_in_bytes = max_memory;
  Int64s rows(arrays.total_k());
  py::array_t<double> potential(groups.n_groups);
  std::int64_t* rows_out = rows.mutable_data();
  double* potential_out = potential.mutable_data();
  Attendant attendant(progress, groups.n_groups);
  {
    const py::gil_scoped_release release;
    const auto run = reads_as_double(source.dtype) ? &kmeans::seed<double> : &kmeans::seed<float>;
    run(source, groups, options, rows_out, potential_out, attendant.monitor(),
        attendant.groups_done());
  }
  attendant.finish();
  py::dict result;
  result["rows"] = rows;
  result["potential"] = potential;
  return result;
}

template <class T>
void assign_as(const RowSource& source, const Groups& groups, std::int64_t total_k,
               const FitOptions& options, const py::array& centroids, std::int64_t n_nearest,
               std::int64_t* assignment, double* distance, Attendant& attendant) {
  const auto given = converted<T>(centroids, total_k * source.n_features(), "centroids");
  const T* values = given.data();
  const py::gil_scoped_release release;
  kmeans::assign<T>(source, groups, options, values, n_nearest, assignment, distance,
                    attendant.monitor(), attendant.groups_done());
}

py::dict assign(const py::array& x, bool bfloat16, int batch_dims, std::optional<Int64s> order,
                Int64s offsets, const py::array& centroids, Int64s k, std::int64_t n_nearest,
                bool return_distance, int n_threads, std::int64_t max_memory,
                const py::object& progress) {
  const RowSource source = row_source(x, bfloat16, batch_dims);
  const std::int64_t n_groups = offsets.size() - 1;
  Int64s ids(std::max<std::int64_t>(n_groups, 0));
  UInt64s seeds(std::max<std::int64_t>(n_groups, 0));
  std::fill(ids.mutable_data(), ids.mutable_data() + ids.size(), 0);
  std::fill(seeds.mutable_data(), seeds.mutable_data() + seeds.size(), 0);
  const GroupArrays arrays{std::move(order), std::move(offsets), std::move(k), ids, seeds, {}};
  const Groups groups = arrays.view(source.n_rows);
  check_n_nearest(n_nearest, groups);
  FitOptions options;
  options.n_threads = n_threads;
  options.max_memory_in_bytes = max_memory;
  options.mislead = asked_to_mislead();
  Int64s assignment({source.n_rows, n_nearest});
  std::optional<py::array_t<double>> distance;
  if (return_distance) distance.emplace(std::vector<py::ssize_t>{source.n_rows, n_nearest});
  Attendant attendant(progress, groups.n_groups);
  const auto run = reads_as_double(source.dtype) ? &assign_as<double> : &assign_as<float>;
  run(source, groups, arrays.total_k(), options, centroids, n_nearest, assignment.mutable_data(),
      distance ? distance->mutable_data() : nullptr, attendant);
  attendant.finish();
  py::dict result;
  result["assignment"] = assignment;
  result["distance"] = distance ? py::object(*distance) : py::object(py::none());
  return result;
}

py::dict plan(std::int64_t n_rows, std::int64_t n_features, std::int64_t k, bool float64,
              bool in_place, const std::string& fastest, const std::string& init, int n_init,
              const std::string& algorithm, int n_threads, std::int64_t max_memory) {
  FitOptions options;
  options.init = parse_init(init);
  options.n_init = n_init;
  options.algorithm = parse_algorithm(algorithm);
  const kmeans::GroupShape shape{n_rows,          n_features, k,
                                 float64 ? 8 : 4, in_place,   parse_format(fastest)};
  const auto plan = kmeans::plan_group(shape, options, max_memory, n_threads);
  py::dict result;
  result["algorithm"] = name_of(plan.algorithm);
  result["keeps_rows"] = plan.residency.rows;
  result["keeps_f32_blocks"] = plan.residency.f32_blocks;
  result["keeps_fast_blocks"] = plan.residency.fast_blocks;
  result["caches_scores"] = plan.cache_scores;
  result["bytes"] = plan.bytes;
  result["least_bytes"] = kmeans::least_bytes(shape, options, n_threads);
  return result;
}

py::dict option_defaults() {
  const FitOptions options;
  py::dict defaults;
  defaults["init"] = "k-means++";
  defaults["n_init"] = options.n_init;
  defaults["max_iter"] = options.max_iter;
  defaults["tol"] = options.tol;
  defaults["algorithm"] = "auto";
  if (options.init != Init::plus_plus || options.algorithm != Algorithm::automatic) {
    throw std::logic_error("option_defaults does not follow FitOptions");
  }
  return defaults;
}

}  // namespace

void register_kmeans(py::module_& module) {
  module.def("fit", &fit, py::kw_only(), py::arg("x"), py::arg("bfloat16"), py::arg("batch_dims"),
             py::arg("order"), py::arg("offsets"), py::arg("k"), py::arg("group_ids"),
             py::arg("seeds"), py::arg("sample_weight"), py::arg("init"), py::arg("init_centroids"),
             py::arg("n_init"), py::arg("max_iter"), py::arg("tol"), py::arg("algorithm"),
             py::arg("n_threads"), py::arg("max_memory"), py::arg("progress"),
             "k-means over groups of rows: see ddkern.quantize.");
  module.def("seed", &seed, py::kw_only(), py::arg("x"), py::arg("bfloat16"), py::arg("batch_dims"),
             py::arg("order"), py::arg("offsets"), py::arg("k"), py::arg("group_ids"),
             py::arg("seeds"), py::arg("sample_weight"), py::arg("init"), py::arg("algorithm"),
             py::arg("n_threads"), py::arg("max_memory"), py::arg("progress"),
             "Seeds alone: see ddkern.seed_centroids.");
  module.def("assign", &assign, py::kw_only(), py::arg("x"), py::arg("bfloat16"),
             py::arg("batch_dims"), py::arg("order"), py::arg("offsets"), py::arg("centroids"),
             py::arg("k"), py::arg("n_nearest"), py::arg("return_distance"), py::arg("n_threads"),
             py::arg("max_memory"), py::arg("progress"),
             "The nearest centroids of every row: see ddkern.assign.");
  module.def("plan", &plan, py::kw_only(), py::arg("n_rows"), py::arg("n_features"), py::arg("k"),
             py::arg("float64"), py::arg("in_place"), py::arg("fastest"), py::arg("init"),
             py::arg("n_init"), py::arg("algorithm"), py::arg("n_threads"), py::arg("max_memory"),
             "What the cost model chooses for one group of this shape.");
  module.def("option_defaults", &option_defaults,
             "The defaults of the core's options, which the Python signature repeats.");
}

}  // namespace ddkern::python
