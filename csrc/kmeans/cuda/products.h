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
  return k <= 16 ? 16 : k <= 32 ? 32 : k <= 64 ? 64 : k <= 128 ? 128 : 256;
}
static_assert(product_columns(10) == 16 && product_columns(50) == 64 &&
              product_columns(200) == 256);

// Columns of a tile of a Gram matrix: the widest that wgmma takes, so that the rows are read for
// as many columns as they can be. (mma.sync alone is a little faster on tiles of 128.)
constexpr int kGramColumns = 256;

// Bytes of shared memory that a block may have on every supported device; where there are more,
// more is under way.
constexpr int kLeastSharedBytes = 99 << 10;

// scores of `tiles` [n_tiles], each of 128 rows by `columns` cells: <Y, C>.
void multiply_with_cells(const ChunkTables& chunk, const ProductTile* tiles, int n_tiles,
                         int columns, int shared_bytes, cudaStream_t stream);

// Products and the first step of nearest.h in one, for all rows of active groups: no score is kept.
// Rows must be short enough for a tile of them to stay in shared memory: so many padded features.
int most_features_scanned(int shared_bytes);
void multiply_and_scan(const ChunkTables& chunk, cudaStream_t stream);

// Tiles of 128 by 256 products of rows that reach below the diagonal of the Gram matrices; what
// lies above it are mirror images.
void multiply_rows(const ChunkTables& chunk, const ProductTile* tiles, int n_tiles,
                   int shared_bytes, cudaStream_t stream);

// Both on compute capability 9.0 (products_sm90a.cu), where the build has it: DDKERN_SM90A.
void multiply_and_scan_sm90a(const ChunkTables& chunk, cudaStream_t stream);
void multiply_rows_sm90a(const ChunkTables& chunk, const ProductTile* tiles, int n_tiles,
                         cudaStream_t stream);

// How far a product may be from the exact one of the packed operands, relative to the product of
// their norms.
double product_error(int n_padded);

}  // namespace ddkern::kmeans::cuda
