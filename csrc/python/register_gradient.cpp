// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <vector>

#include "core/error.h"
#include "matching/gradient.h"
#include "python/bindings.h"
#include "python/typed_values.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

using matching::CombineMatrix;
using matching::ProductsMatrix;

struct MatrixShape {
  py::ssize_t rows;
  py::ssize_t columns;
};

MatrixShape matrix_shape(const py::array& array) {
  if (array.ndim() != 2) throw InvalidArgument("a holds an array that is no matrix");
  return {array.shape(0), array.shape(1)};
}

py::ssize_t count_rows(const Arrays& arrays) {
  py::ssize_t rows = 0;
  for (const py::array& array : arrays) rows += matrix_shape(array).rows;
  return rows;
}

template <class T>
void products_as(const Arrays& a, const Arrays& b, const py::array& out, int n_threads) {
  check_count(b, a, "b");
  const py::ssize_t n_rows = count_rows(a);
  double* const sums = values_of<double>(out, {3, n_rows}, true, "out");
  std::vector<ProductsMatrix<T>> matrices;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto [rows, columns] = matrix_shape(a[i]);
    matrices.push_back({rows, columns, values_of<T>(a[i], {rows, columns}, false, "a"),
                        values_of<T>(b[i], {rows, columns}, false, "b")});
  }
  const py::gil_scoped_release release;
  matching::row_products(matrices, {sums, sums + n_rows, sums + 2 * n_rows}, n_threads);
}

template <class T>
void combination_as(const Arrays& a, const Arrays& b, const py::array& of_a, const py::array& of_b,
                    const Arrays& out, int n_threads) {
  check_count(b, a, "b");
  check_count(out, a, "out");
  const py::ssize_t n_rows = count_rows(a);
  const double* const factors_a = values_of<double>(of_a, {n_rows}, false, "of_a");
  const double* const factors_b = values_of<double>(of_b, {n_rows}, false, "of_b");
  std::vector<CombineMatrix<T>> matrices;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto [rows, columns] = matrix_shape(a[i]);
    matrices.push_back({rows, columns, values_of<T>(a[i], {rows, columns}, false, "a"),
                        values_of<T>(b[i], {rows, columns}, false, "b"),
                        values_of<T>(out[i], {rows, columns}, true, "out")});
  }
  const py::gil_scoped_release release;
  matching::row_combination(matrices, factors_a, factors_b, n_threads);
}

}  // namespace

void register_gradient(py::module_& module) {
  module.def(
      "row_products",
      [](const Arrays& a, const Arrays& b, const py::array& out, int n_threads) {
        (hold_bfloat16(a) ? products_as<Bfloat16> : products_as<float>)(a, b, out, n_threads);
      },
      py::kw_only(), py::arg("a"), py::arg("b"), py::arg("out"), py::arg("n_threads"),
      "Sums of a * b, a^2 and b^2 of every row of matrices into out: see ddkern.losses.");
  module.def(
      "row_combination",
      [](const Arrays& a, const Arrays& b, const py::array& of_a, const py::array& of_b,
         const Arrays& out, int n_threads) {
        (hold_bfloat16(a) ? combination_as<Bfloat16> : combination_as<float>)(a, b, of_a, of_b, out,
                                                                              n_threads);
      },
      py::kw_only(), py::arg("a"), py::arg("b"), py::arg("of_a"), py::arg("of_b"), py::arg("out"),
      py::arg("n_threads"),
      "of_a * a + of_b * b into out, with one factor a row of matrices: see ddkern.losses.");
}

}  // namespace ddkern::python
