// SPDX-License-Identifier: Apache-2.0
// Losses between gradients on a GPU: matching/cosine/cosine.h is the contract, matching/gradient.h
// says what becomes of whole matrices, and the bits are those of the CPU. As in
// matching/cuda/trajectory.h, nothing waits and nothing is allocated.
#pragma once

#include <cstdint>
#include <vector>

#include "matching/cuda/trajectory.h"
#include "matching/gradient.h"

namespace ddkern::matching::cuda {

// Doubles of workspace that row_products() takes for matrices of these numbers of rows and columns.
std::int64_t products_workspace(const std::vector<std::int64_t>& n_rows,
                                const std::vector<std::int64_t>& n_columns);

// T is float or Bfloat16. Pointers are to memory of the device, here and below.
template <class T>
void row_products(const std::vector<ProductsMatrix<T>>& matrices, const ProductsOut& out,
                  double* workspace, const DeviceCall& call);

// of_a and of_b: [R], one factor a row.
template <class T>
void row_combination(const std::vector<CombineMatrix<T>>& matrices, const double* of_a,
                     const double* of_b, const DeviceCall& call);

}  // namespace ddkern::matching::cuda
