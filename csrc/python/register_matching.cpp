// SPDX-License-Identifier: Apache-2.0
// Losses between networks. Tensors come as addresses and sizes, for a small network is done sooner
// than arrays of it are made: whose memory it is, and that it is large enough, is the Python
// layer's to know (ddkern/losses/trajectory_ops.py).
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "matching/matching.h"
#include "python/bindings.h"
#include "python/matching_arguments.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

using matching::TotalOf;

py::array_t<double> sums(const Addresses& student, const Addresses& target,
                         const std::optional<Addresses>& start, const Sizes& sizes,
                         const TotalOf& total_of, std::int64_t n_totals, bool bfloat16,
                         int n_threads) {
  check_count(student, sizes, "student");
  check_count(target, sizes, "target");
  if (start) check_count(*start, sizes, "start");
  check_totals(total_of, n_totals, sizes);
  py::array_t<double> out({std::int64_t{2}, n_totals});
  double* const to_target = out.mutable_data();
  const py::gil_scoped_release release;
  const auto run = [&](const auto& tensors) {
    return matching::trajectory_sums(tensors, total_of, n_totals, n_threads);
  };
  const auto totals = bfloat16 ? run(tensors_of<Bfloat16>(student, target, start, sizes))
                               : run(tensors_of<float>(student, target, start, sizes));
  for (std::int64_t i = 0; i < n_totals; ++i) {
    to_target[i] = totals[i].to_target;
    to_target[n_totals + i] = totals[i].of_start;
  }
  return out;
}

py::array_t<double> absolute(const Addresses& student, const Addresses& target, const Sizes& sizes,
                             const TotalOf& total_of, std::int64_t n_totals, bool bfloat16,
                             int n_threads) {
  check_count(student, sizes, "student");
  check_count(target, sizes, "target");
  check_totals(total_of, n_totals, sizes);
  py::array_t<double> out(n_totals);
  double* const totals_out = out.mutable_data();
  const py::gil_scoped_release release;
  const auto run = [&](const auto& tensors) {
    return matching::absolute_sums(tensors, total_of, n_totals, n_threads);
  };
  const auto totals = bfloat16 ? run(tensors_of<Bfloat16>(student, target, std::nullopt, sizes))
                               : run(tensors_of<float>(student, target, std::nullopt, sizes));
  std::copy(totals.begin(), totals.end(), totals_out);
  return out;
}

void difference(const Addresses& a, const Addresses& b, const Addresses& out, const Sizes& sizes,
                const TotalOf& total_of, const std::vector<float>& factors, bool bfloat16,
                int n_threads) {
  check_count(a, sizes, "a");
  check_count(b, sizes, "b");
  check_count(out, sizes, "out");
  check_totals(total_of, static_cast<std::int64_t>(factors.size()), sizes);
  const py::gil_scoped_release release;
  const auto run = [&](const auto& tensors) {
    matching::scaled_difference(tensors, total_of, factors.data(), n_threads);
  };
  if (bfloat16) {
    run(differences_of<Bfloat16>(a, b, out, sizes));
  } else {
    run(differences_of<float>(a, b, out, sizes));
  }
}

}  // namespace

void register_matching(py::module_& module) {
  module.def("trajectory_sums", &sums, py::kw_only(), py::arg("student"), py::arg("target"),
             py::arg("start"), py::arg("sizes"), py::arg("total_of"), py::arg("n_totals"),
             py::arg("bfloat16"), py::arg("n_threads"),
             "Sums of (student - target)^2 and (start - target)^2, shape (2, n_totals): see "
             "ddkern.losses.");
  module.def("absolute_sums", &absolute, py::kw_only(), py::arg("student"), py::arg("target"),
             py::arg("sizes"), py::arg("total_of"), py::arg("n_totals"), py::arg("bfloat16"),
             py::arg("n_threads"),
             "Sums of |student - target|, shape (n_totals,): see ddkern.losses.");
  module.def("scaled_difference", &difference, py::kw_only(), py::arg("a"), py::arg("b"),
             py::arg("out"), py::arg("sizes"), py::arg("total_of"), py::arg("factors"),
             py::arg("bfloat16"), py::arg("n_threads"),
             "factors[total] * (a - b) into out: see ddkern.losses.");
}

}  // namespace ddkern::python
