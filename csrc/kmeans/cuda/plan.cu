// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cuda/plan.h"

#include <algorithm>
#include <map>

#include "kmeans/cuda/seeding.h"

namespace ddkern::kmeans::cuda {
namespace {

constexpr std::int64_t kMostGramRows = 1 << 15;
constexpr std::int64_t kGramAlignment = 32;  // floats: a row of a Gram matrix begins a sector

std::int64_t tiles_of(std::int64_t n) { return (n + kTileRows - 1) / kTileRows; }

}  // namespace

void ChunkSize::add(std::int64_t n, std::int64_t k, bool in_gram_space) {
  const std::int64_t stride = (n + kGramAlignment - 1) / kGramAlignment * kGramAlignment;
  const std::int64_t tiles = tiles_of(n);
  ++n_groups;
  n_rows += n;
  n_cells += k;
  n_tiles += tiles;
  most_rows = std::max(most_rows, n);
  most_k = std::max(most_k, k);
  if (in_gram_space) {
    gram += n * stride;
    combined += k * stride;
    n_product_tiles += tiles * (tiles + 1) / 2;
  }
  scores += tiles * kTileRows * k;
  const std::int64_t columns = product_columns(k);
  n_product_tiles += tiles * ((k + columns - 1) / columns);
}

bool gram_pays(std::int64_t n, std::int64_t n_features, std::int64_t k, std::int64_t bytes_a_value,
               const FitOptions& options) {
  constexpr double kProducts = 3e14, kBytes = 2.5e12;  // a second
  constexpr double kUsualIterations = 20;
  // Given centroids are no combinations of rows.
  if (options.init == Init::array || n > kMostGramRows) return false;
  const auto rows = static_cast<double>(n), features = static_cast<double>(n_features);
  const double pass = rows * features * static_cast<double>(bytes_a_value) / kBytes;
  const double packed_pass = rows * features * 2 / kBytes;
  const double steps = options.init == Init::plus_plus ? static_cast<double>(k) : 0;
  const double iterations =
      std::min<double>(kUsualIterations, static_cast<double>(options.max_iter));
  // Of a step in Gram space about a row in ten has to be read, and all of them in the first.
  const double gram_run = (0.1 * steps + (steps > 0 ? 1 : 0)) * pass + 2 * rows * rows * 4 / kBytes;
  const double streaming_run = steps * pass + iterations * packed_pass;
  const double matrix = rows * rows * features / kProducts + 3 * rows * rows * 4 / kBytes;
  return matrix + options.n_init * gram_run < options.n_init * streaming_run;
}

TileLists list_tiles(const std::vector<GroupShape>& shapes, bool gram) {
  TileLists lists;
  std::map<int, std::vector<ProductTile>> by_columns;
  Window window;
  std::int64_t in_window = 0;
  const auto close = [&] {
    for (const auto& [columns, tiles] : by_columns) {
      window.parts.push_back(
          {columns, static_cast<int>(lists.products.size()), static_cast<int>(tiles.size())});
      lists.products.insert(lists.products.end(), tiles.begin(), tiles.end());
    }
    lists.n_scores = std::max(lists.n_scores, in_window);
    lists.windows.push_back(window);
    window = Window();
    window.first_tile = static_cast<int>(lists.rows.size());
    by_columns.clear();
    in_window = 0;
  };
  for (std::size_t g = 0; g < shapes.size(); ++g) {
    const GroupShape& shape = shapes[g];
    const int columns = product_columns(shape.k);
    for (std::int64_t first = 0; first < shape.n; first += kTileRows) {
      const std::int64_t n_scores = std::int64_t{kTileRows} * shape.k;
      // In Gram space the scores of unchanged cells are kept from pass to pass.
      if (!gram && in_window > 0 && in_window + n_scores > kScoreWindow) close();
      const auto tile = static_cast<std::int32_t>(lists.rows.size());
      lists.rows.push_back(
          {static_cast<std::int32_t>(g), static_cast<std::int32_t>(first), in_window});
      in_window += n_scores;
      ++window.n_tiles;
      for (std::int32_t c = 0; c < shape.k; c += columns) by_columns[columns].push_back({tile, c});
      if (!gram) continue;
      for (std::int32_t c = 0; c < first + kTileRows; c += kGramColumns) {
        lists.gram_products.push_back({tile, c});
      }
    }
  }
  close();
  return lists;
}

}  // namespace ddkern::kmeans::cuda
