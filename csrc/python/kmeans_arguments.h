// SPDX-License-Identifier: Apache-2.0
// What the bindings of the CPU and of the CUDA quantizer have in common: arguments, progress and
// reports.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "kmeans/kmeans.h"

namespace ddkern::python {

namespace py = pybind11;

using kmeans::Algorithm;
using kmeans::FitOptions;
using kmeans::GroupReport;
using kmeans::Groups;
using kmeans::Init;
using kmeans::Mislead;

using Int64s = py::array_t<std::int64_t, py::array::c_style>;
using UInt64s = py::array_t<std::uint64_t, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

inline Init parse_init(const std::string& name) {
  if (name == "k-means++") return Init::plus_plus;
  if (name == "random") return Init::random;
  if (name == "array") return Init::array;
  throw InvalidArgument("init is '" + name + "'; it must be 'k-means++', 'random' or an array");
}

inline Algorithm parse_algorithm(const std::string& name) {
  if (name == "auto") return Algorithm::automatic;
  if (name == "gram") return Algorithm::gram;
  if (name == "streaming") return Algorithm::streaming;
  throw InvalidArgument("algorithm is '" + name + "'; it must be 'auto', 'gram' or 'streaming'");
}

inline const char* name_of(kmeans::FastFormat format) {
  switch (format) {
    case kmeans::FastFormat::f32: return "float32";
    case kmeans::FastFormat::bf16: return "bfloat16";
    case kmeans::FastFormat::bytes: return "bytes";
  }
  return "";
}

inline const char* name_of(Algorithm algorithm) {
  return algorithm == Algorithm::gram ? "gram" : "streaming";
}

// Keeps the arrays that Groups points into.
struct GroupArrays {
  std::optional<Int64s> order;
  Int64s offsets, k, ids;
  UInt64s seeds;
  std::optional<Doubles> sample_weight;

  Groups view(std::int64_t n_rows) const {
    const std::int64_t n_groups = offsets.size() - 1;
    if (n_groups < 1 || k.size() != n_groups || ids.size() != n_groups ||
        seeds.size() != n_groups) {
      throw InvalidArgument("offsets, k, group_ids and seeds disagree on the number of groups");
    }
    if (order && order->size() != n_rows) throw InvalidArgument("order must have one entry a row");
    if (sample_weight && sample_weight->size() != n_rows) {
      throw InvalidArgument("sample_weight must have one entry a row");
    }
    const std::int64_t* at = offsets.data();
    if (at[0] != 0 || at[n_groups] != n_rows) throw InvalidArgument("offsets must span all rows");
    for (std::int64_t g = 0; g < n_groups; ++g) {
      if (at[g + 1] <= at[g]) throw InvalidArgument("offsets must increase");
      if (k.data()[g] < 1 || k.data()[g] > INT32_MAX) throw InvalidArgument("k is out of range");
    }
    if (order) {
      for (std::int64_t i = 0; i < n_rows; ++i) {
        if (order->data()[i] < 0 || order->data()[i] >= n_rows) {
          throw InvalidArgument("order must hold row numbers");
        }
      }
    }
    return {order ? order->data() : nullptr,
            at,
            k.data(),
            ids.data(),
            seeds.data(),
            sample_weight ? sample_weight->data() : nullptr,
            n_groups};
  }
  std::int64_t total_k() const {
    return std::accumulate(k.data(), k.data() + k.size(), std::int64_t{0});
  }
};

inline void check_n_nearest(std::int64_t n_nearest, const Groups& groups) {
  for (std::int64_t g = 0; g < groups.n_groups; ++g) {
    if (n_nearest < 1 || n_nearest > groups.k[g]) {
      throw InvalidArgument("n_nearest is " + std::to_string(n_nearest) +
                            "; it must be at least 1 and at most the number of centroids of "
                            "every group");
    }
  }
}

// Signals and progress, on the calling thread, with the GIL.
class Attendant {
 public:
  Attendant(py::object progress, std::int64_t n_groups)
      : progress_(std::move(progress)), n_groups_(n_groups), monitor_([this] { attend(); }) {}

  Monitor& monitor() { return monitor_; }
  std::atomic<std::int64_t>& groups_done() { return groups_done_; }

  // The last report, after the work is done. Needs the GIL.
  void finish() { report(); }

 private:
  void attend() {
    const py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (groups_done_.load() < n_groups_) report();  // the last one is finish()'s
  }
  void report() {
    if (progress_.is_none()) return;
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
    progress_(groups_done_.load(), n_groups_, spent.count());
  }

  py::object progress_;
  std::int64_t n_groups_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::atomic<std::int64_t> groups_done_{0};
  Monitor monitor_;
};

template <class T, class Value>
py::array_t<T> per_group(const std::vector<GroupReport>& reports, const Value& value) {
  py::array_t<T> out(static_cast<py::ssize_t>(reports.size()));
  T* to = out.mutable_data();
  for (std::size_t g = 0; g < reports.size(); ++g) to[g] = static_cast<T>(value(reports[g]));
  return out;
}

inline py::dict describe(const std::vector<GroupReport>& reports) {
  py::dict stats;
  std::vector<std::string> algorithms, products;
  for (const auto& report : reports) {
    algorithms.emplace_back(name_of(report.algorithm));
    products.emplace_back(name_of(report.products));
  }
  const auto integers = [&](std::int64_t GroupReport::* field) {
    return per_group<std::int64_t>(reports, [&](const GroupReport& r) { return r.*field; });
  };
  const auto doubles = [&](double GroupReport::* field) {
    return per_group<double>(reports, [&](const GroupReport& r) { return r.*field; });
  };
  stats["algorithm"] = algorithms;
  stats["products"] = products;
  stats["rows_assigned"] = integers(&GroupReport::rows_assigned);
  stats["rows_rechecked"] = integers(&GroupReport::rows_rechecked);
  stats["rows_exact"] = integers(&GroupReport::rows_exact);
  stats["products_skipped"] = integers(&GroupReport::products_skipped);
  stats["cells_reseeded"] = integers(&GroupReport::cells_reseeded);
  stats["seconds_prepare"] = doubles(&GroupReport::seconds_prepare);
  stats["seconds_seed"] = doubles(&GroupReport::seconds_seed);
  stats["seconds_lloyd"] = doubles(&GroupReport::seconds_lloyd);
  return stats;
}

// What a fit says of its groups. `products` names what the products were made of where no format of
// the CPU says so.
inline py::dict describe_fit(const std::vector<GroupReport>& reports,
                             const char* products = nullptr) {
  py::dict result;
  result["distortion"] = per_group<double>(reports, [](const auto& r) { return r.distortion; });
  result["inertia"] = per_group<double>(reports, [](const auto& r) { return r.inertia; });
  py::list history;
  for (const auto& report : reports) {
    history.append(py::array_t<double>(static_cast<py::ssize_t>(report.history.size()),
                                       report.history.data()));
  }
  result["history"] = history;
  result["n_iter"] = per_group<std::int64_t>(reports, [](const auto& r) { return r.n_iter; });
  result["converged"] = per_group<bool>(reports, [](const auto& r) { return r.converged; });
  result["empty_cells"] =
      per_group<std::int64_t>(reports, [](const auto& r) { return r.n_empty_cells; });
  result["restart"] = per_group<std::int64_t>(reports, [](const auto& r) { return r.restart; });
  py::dict stats = describe(reports);
  if (products != nullptr) {
    stats["products"] = std::vector<std::string>(reports.size(), products);
  }
  result["stats"] = stats;
  return result;
}

}  // namespace ddkern::python
