// SPDX-License-Identifier: Apache-2.0
// Losses between gradients, as lists of matrices: one row an output of a layer.
//
// The arithmetic is that of the ops, one folder each. Here rows are cut into blocks of a fixed
// size, blocks are handed to threads, and the sums of a row's blocks are added in their order: the
// same bits for any number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "matching/cosine/cosine.h"

namespace ddkern::matching {

// Part of the definition of the sums: another size would round otherwise.
constexpr std::int64_t kProductsBlock = 16 * 1024;  // values, of one row

template <class T>
struct ProductsMatrix {
  std::int64_t n_rows;
  std::int64_t n_columns;
  const T* a;  // [n_rows, n_columns]
  const T* b;  // [n_rows, n_columns]
};

template <class T>
struct CombineMatrix {
  std::int64_t n_rows;
  std::int64_t n_columns;
  const T* a;  // [n_rows, n_columns]
  const T* b;  // [n_rows, n_columns]
  T* out;      // out [n_rows, n_columns]
};

// R is the number of rows of all matrices together.
struct ProductsOut {
  double* dot;       // out [R]
  double* square_a;  // out [R]
  double* square_b;  // out [R]
};

// T is float or Bfloat16. At most n_threads threads, fewer where there is little to do.
template <class T>
void row_products(const std::vector<ProductsMatrix<T>>& matrices, const ProductsOut& out,
                  int n_threads);
// of_a and of_b: [R], one factor a row.
template <class T>
void row_combination(const std::vector<CombineMatrix<T>>& matrices, const double* of_a,
                     const double* of_b, int n_threads);

}  // namespace ddkern::matching
