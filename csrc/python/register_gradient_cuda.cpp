// SPDX-License-Identifier: Apache-2.0
// Losses between gradients on device memory: addresses, as in register_matching_cuda.cpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "matching/cuda/gradient.h"
#include "python/addresses.h"
#include "python/bindings.h"

namespace py = pybind11;

namespace ddkern::python {
namespace {

using matching::CombineMatrix;
using matching::ProductsMatrix;

std::int64_t workspace_of(const Sizes& n_rows, const Sizes& n_columns) {
  check_count(n_columns, n_rows, "n_columns");
  return matching::cuda::products_workspace(n_rows, n_columns);
}

template <class T>
void products_as(const Addresses& a, const Addresses& b, const Sizes& n_rows,
                 const Sizes& n_columns, double* workspace, double* out,
                 const matching::cuda::DeviceCall& call) {
  std::vector<ProductsMatrix<T>> matrices;
  for (std::size_t i = 0; i < n_rows.size(); ++i) {
    matrices.push_back({n_rows[i], n_columns[i], pointer<const T>(a[i]), pointer<const T>(b[i])});
  }
  const std::int64_t n = std::accumulate(n_rows.begin(), n_rows.end(), std::int64_t{0});
  matching::cuda::row_products(matrices, {out, out + n, out + 2 * n}, workspace, call);
}

void products(const Addresses& a, const Addresses& b, const Sizes& n_rows, const Sizes& n_columns,
              bool bfloat16, std::uintptr_t workspace, std::uintptr_t out, int device,
              std::uintptr_t stream) {
  check_count(a, n_rows, "a");
  check_count(b, n_rows, "b");
  check_count(n_columns, n_rows, "n_columns");
  const py::gil_scoped_release release;
  (bfloat16 ? products_as<Bfloat16>
            : products_as<float>)(a, b, n_rows, n_columns, pointer<double>(workspace),
                                  pointer<double>(out), {device, pointer<void>(stream)});
}

template <class T>
void combination_as(const Addresses& a, const Addresses& b, const Addresses& out,
                    const Sizes& n_rows, const Sizes& n_columns, const double* of_a,
                    const double* of_b, const matching::cuda::DeviceCall& call) {
  std::vector<CombineMatrix<T>> matrices;
  for (std::size_t i = 0; i < n_rows.size(); ++i) {
    matrices.push_back({n_rows[i], n_columns[i], pointer<const T>(a[i]), pointer<const T>(b[i]),
                        pointer<T>(out[i])});
  }
  matching::cuda::row_combination(matrices, of_a, of_b, call);
}

void combination(const Addresses& a, const Addresses& b, const Addresses& out, const Sizes& n_rows,
                 const Sizes& n_columns, bool bfloat16, std::uintptr_t of_a, std::uintptr_t of_b,
                 int device, std::uintptr_t stream) {
  check_count(a, n_rows, "a");
  check_count(b, n_rows, "b");
  check_count(out, n_rows, "out");
  check_count(n_columns, n_rows, "n_columns");
  const py::gil_scoped_release release;
  (bfloat16 ? combination_as<Bfloat16>
            : combination_as<float>)(a, b, out, n_rows, n_columns, pointer<const double>(of_a),
                                     pointer<const double>(of_b), {device, pointer<void>(stream)});
}

}  // namespace

void register_gradient_cuda(py::module_& module) {
  module.def("products_workspace", &workspace_of, py::kw_only(), py::arg("n_rows"),
             py::arg("n_columns"), "Doubles of workspace that row_products takes.");
  module.def("row_products", &products, py::kw_only(), py::arg("a"), py::arg("b"),
             py::arg("n_rows"), py::arg("n_columns"), py::arg("bfloat16"), py::arg("workspace"),
             py::arg("out"), py::arg("device"), py::arg("stream"),
             "Sums of a * b, a^2 and b^2 of every row of matrices into out: see ddkern.losses.");
  module.def("row_combination", &combination, py::kw_only(), py::arg("a"), py::arg("b"),
             py::arg("out"), py::arg("n_rows"), py::arg("n_columns"), py::arg("bfloat16"),
             py::arg("of_a"), py::arg("of_b"), py::arg("device"), py::arg("stream"),
             "of_a * a + of_b * b into out, with one factor a row of matrices: see ddkern.losses.");
}

}  // namespace ddkern::python
