// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "matching/matching.h"
#include "python/bindings.h"
#include "python/typed_values.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

using matching::DifferenceBlock;
using matching::TrajectoryBlock;

template <class T>
std::pair<double, double> sums_as(const Arrays& student, const Arrays& target,
                                  const std::optional<Arrays>& start, int n_threads) {
  check_count(target, student, "target");
  if (start) check_count(*start, student, "start");
  std::vector<TrajectoryBlock<T>> tensors;
  for (std::size_t i = 0; i < student.size(); ++i) {
    const py::ssize_t n = student[i].size();
    tensors.push_back({n, values_of<T>(student[i], {n}, false, "student"),
                       values_of<T>(target[i], {n}, false, "target"),
                       start ? values_of<T>((*start)[i], {n}, false, "start") : nullptr});
  }
  const py::gil_scoped_release release;
  const auto sums = matching::trajectory_sums(tensors, n_threads);
  return {sums.to_target, sums.of_start};
}

template <class T>
double absolute_as(const Arrays& student, const Arrays& target, int n_threads) {
  check_count(target, student, "target");
  std::vector<TrajectoryBlock<T>> tensors;
  for (std::size_t i = 0; i < student.size(); ++i) {
    const py::ssize_t n = student[i].size();
    tensors.push_back({n, values_of<T>(student[i], {n}, false, "student"),
                       values_of<T>(target[i], {n}, false, "target"), nullptr});
  }
  const py::gil_scoped_release release;
  return matching::absolute_sum(tensors, n_threads);
}

template <class T>
void difference_as(const Arrays& a, const Arrays& b, const Arrays& out, float factor,
                   int n_threads) {
  check_count(b, a, "b");
  check_count(out, a, "out");
  std::vector<DifferenceBlock<T>> tensors;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const py::ssize_t n = a[i].size();
    tensors.push_back({n, values_of<T>(a[i], {n}, false, "a"), values_of<T>(b[i], {n}, false, "b"),
                       values_of<T>(out[i], {n}, true, "out")});
  }
  const py::gil_scoped_release release;
  matching::scaled_difference(tensors, factor, n_threads);
}

}  // namespace

void register_matching(py::module_& module) {
  module.def(
      "trajectory_sums",
      [](const Arrays& student, const Arrays& target, const std::optional<Arrays>& start,
         int n_threads) {
        return (hold_bfloat16(student) ? sums_as<Bfloat16> : sums_as<float>)(student, target, start,
                                                                             n_threads);
      },
      py::kw_only(), py::arg("student"), py::arg("target"), py::arg("start"), py::arg("n_threads"),
      "Sums of (student - target)^2 and (start - target)^2 over flat arrays: see ddkern.losses.");
  module.def(
      "absolute_sum",
      [](const Arrays& student, const Arrays& target, int n_threads) {
        return (hold_bfloat16(student) ? absolute_as<Bfloat16>
                                       : absolute_as<float>)(student, target, n_threads);
      },
      py::kw_only(), py::arg("student"), py::arg("target"), py::arg("n_threads"),
      "The sum of |student - target| over flat arrays: see ddkern.losses.");
  module.def(
      "scaled_difference",
      [](const Arrays& a, const Arrays& b, const Arrays& out, float factor, int n_threads) {
        (hold_bfloat16(a) ? difference_as<Bfloat16> : difference_as<float>)(a, b, out, factor,
                                                                            n_threads);
      },
      py::kw_only(), py::arg("a"), py::arg("b"), py::arg("out"), py::arg("factor"),
      py::arg("n_threads"), "factor * (a - b) into out, over flat arrays: see ddkern.losses.");
}

}  // namespace ddkern::python
