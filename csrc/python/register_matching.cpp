// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/error.h"
#include "matching/matching.h"
#include "python/bindings.h"
#include "python/typed_values.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

using matching::DifferenceBlock;
using matching::TotalOf;
using matching::TrajectoryBlock;

void check_totals(const TotalOf& total_of, std::int64_t n_totals, const Arrays& first) {
  bool fits = total_of.size() == first.size();
  for (const std::int64_t total : total_of) fits = fits && total >= 0 && total < n_totals;
  if (!fits) throw InvalidArgument("total_of must have an index of a total for each tensor");
}

template <class T>
std::vector<TrajectoryBlock<T>> tensors_of(const Arrays& student, const Arrays& target,
                                           const std::optional<Arrays>& start) {
  check_count(target, student, "target");
  if (start) check_count(*start, student, "start");
  std::vector<TrajectoryBlock<T>> tensors;
  for (std::size_t i = 0; i < student.size(); ++i) {
    const py::ssize_t n = student[i].size();
    tensors.push_back({n, values_of<T>(student[i], {n}, false, "student"),
                       values_of<T>(target[i], {n}, false, "target"),
                       start ? values_of<T>((*start)[i], {n}, false, "start") : nullptr});
  }
  return tensors;
}

template <class T>
py::array_t<double> sums_as(const Arrays& student, const Arrays& target,
                            const std::optional<Arrays>& start, const TotalOf& total_of,
                            std::int64_t n_totals, int n_threads) {
  const auto tensors = tensors_of<T>(student, target, start);
  py::array_t<double> out({std::int64_t{2}, n_totals});
  double* const to_target = out.mutable_data();
  const py::gil_scoped_release release;
  const auto totals = matching::trajectory_sums(tensors, total_of, n_totals, n_threads);
  for (std::int64_t i = 0; i < n_totals; ++i) {
    to_target[i] = totals[i].to_target;
    to_target[n_totals + i] = totals[i].of_start;
  }
  return out;
}

template <class T>
py::array_t<double> absolute_as(const Arrays& student, const Arrays& target,
                                const TotalOf& total_of, std::int64_t n_totals, int n_threads) {
  const auto tensors = tensors_of<T>(student, target, std::nullopt);
  py::array_t<double> out(n_totals);
  double* const totals_out = out.mutable_data();
  const py::gil_scoped_release release;
  const auto totals = matching::absolute_sums(tensors, total_of, n_totals, n_threads);
  std::copy(totals.begin(), totals.end(), totals_out);
  return out;
}

template <class T>
void difference_as(const Arrays& a, const Arrays& b, const Arrays& out, const TotalOf& total_of,
                   const float* factors, int n_threads) {
  check_count(b, a, "b");
  check_count(out, a, "out");
  std::vector<DifferenceBlock<T>> tensors;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const py::ssize_t n = a[i].size();
    tensors.push_back({n, values_of<T>(a[i], {n}, false, "a"), values_of<T>(b[i], {n}, false, "b"),
                       values_of<T>(out[i], {n}, true, "out")});
  }
  const py::gil_scoped_release release;
  matching::scaled_difference(tensors, total_of, factors, n_threads);
}

}  // namespace

void register_matching(py::module_& module) {
  module.def(
      "trajectory_sums",
      [](const Arrays& student, const Arrays& target, const std::optional<Arrays>& start,
         const TotalOf& total_of, std::int64_t n_totals, int n_threads) {
        check_totals(total_of, n_totals, student);
        return (hold_bfloat16(student) ? sums_as<Bfloat16> : sums_as<float>)(student, target, start,
                                                                             total_of, n_totals,
                                                                             n_threads);
      },
      py::kw_only(), py::arg("student"), py::arg("target"), py::arg("start"), py::arg("total_of"),
      py::arg("n_totals"), py::arg("n_threads"),
      "Sums of (student - target)^2 and (start - target)^2 over flat arrays, shape (2, n_totals): "
      "see ddkern.losses.");
  module.def(
      "absolute_sums",
      [](const Arrays& student, const Arrays& target, const TotalOf& total_of,
         std::int64_t n_totals, int n_threads) {
        check_totals(total_of, n_totals, student);
        return (hold_bfloat16(student)
                    ? absolute_as<Bfloat16>
                    : absolute_as<float>)(student, target, total_of, n_totals, n_threads);
      },
      py::kw_only(), py::arg("student"), py::arg("target"), py::arg("total_of"),
      py::arg("n_totals"), py::arg("n_threads"),
      "Sums of |student - target| over flat arrays, shape (n_totals,): see ddkern.losses.");
  module.def(
      "scaled_difference",
      [](const Arrays& a, const Arrays& b, const Arrays& out, const TotalOf& total_of,
         const py::array& factors, int n_threads) {
        const float* values = values_of<float>(factors, {factors.size()}, false, "factors");
        check_totals(total_of, factors.size(), a);
        (hold_bfloat16(a) ? difference_as<Bfloat16> : difference_as<float>)(a, b, out, total_of,
                                                                            values, n_threads);
      },
      py::kw_only(), py::arg("a"), py::arg("b"), py::arg("out"), py::arg("total_of"),
      py::arg("factors"), py::arg("n_threads"),
      "factors[total] * (a - b) into out, over flat arrays: see ddkern.losses.");
}

}  // namespace ddkern::python
