// SPDX-License-Identifier: Apache-2.0
// Products of packed rows on tensor cores: float16 operands, float32 sums. They decide nothing by
// themselves; bounds of their error do (nearest.cu, seeding.cu).
#pragma once

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

struct ProductTile {
  std::int32_t row_tile, first_column;
};

// Columns of a tile for groups of `k` cells: few enough that small k does not pay for 128.
constexpr int product_columns(std::int64_t k) {
  return k <= 16 ? 16 : k <= 32 ? 32 : k <= 64 ? 64 : 128;
}
static_assert(product_columns(10) == 16 && product_columns(50) == 64 &&
              product_columns(200) == 128);

// scores of `tiles` [n_tiles], each of 128 rows by `columns` cells: <Y, C>.
template <class T>
void multiply_with_cells(const Chunk<T>& chunk, const ProductTile* tiles, int n_tiles, int columns,
                         cudaStream_t stream);

// Tiles of 128 by 128 rows at and below the diagonal of the Gram matrices, and their mirror images.
template <class T>
void multiply_rows(const Chunk<T>& chunk, const ProductTile* tiles, int n_tiles,
                   cudaStream_t stream);

// How far a product may be from the exact one of the packed operands, relative to the product of
// their norms.
double product_error(int n_padded);

}  // namespace ddkern::kmeans::cuda
