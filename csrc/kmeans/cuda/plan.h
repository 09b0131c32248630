// SPDX-License-Identifier: Apache-2.0
// Which groups are worked on together, in which space, and where their tables begin. Pure functions
// of shapes, options and memory: they run without a device.
#pragma once

#include <cstdint>
#include <vector>

#include "kmeans/cuda/products.h"
#include "kmeans/cuda/tables.h"
#include "kmeans/kmeans.h"

namespace ddkern::kmeans::cuda {

// Groups [first, last) of a call.
struct ChunkPlan {
  std::int64_t first = 0, last = 0;
  bool gram = false;
};

// Sizes that the tables of a chunk follow from.
struct ChunkSize {
  std::int64_t n_groups = 0, n_rows = 0, n_cells = 0, n_tiles = 0, most_rows = 0, most_k = 0;
  std::int64_t gram = 0, combined = 0, scores = 0;  // elements
  std::int64_t n_product_tiles = 0;

  void add(std::int64_t n, std::int64_t k, bool in_gram_space);
};

// Whether a group is done sooner in Gram space than streaming. The rates behind it are those of
// Hopper; only their ratios matter, which move little from one kind of GPU to the next.
bool gram_pays(std::int64_t n, std::int64_t n_features, std::int64_t k, std::int64_t bytes_a_value,
               const FitOptions& options);

// Floats of scores that are kept at a time where cells are streamed.
constexpr std::int64_t kScoreWindow = std::int64_t{1} << 27;

// Tiles of rows and products of one pass over part of a chunk.
struct Window {
  int first_tile = 0, n_tiles = 0;
  struct Part {
    int columns, first, n;  // product tiles
  };
  std::vector<Part> parts;
};

struct TileLists {
  std::vector<RowTile> rows;
  std::vector<ProductTile> products;       // of windows: rows by cells
  std::vector<ProductTile> gram_products;  // rows by rows
  std::vector<Window> windows;
  std::int64_t n_scores = 0;
};
TileLists list_tiles(const std::vector<GroupShape>& shapes, bool gram);

}  // namespace ddkern::kmeans::cuda
