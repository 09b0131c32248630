// SPDX-License-Identifier: Apache-2.0
// What a chunk of groups needs in device memory, laid out in one allocation.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kmeans/cuda/nearest_few.h"
#include "kmeans/cuda/plan.h"
#include "kmeans/cuda/products.h"
#include "kmeans/cuda/seeding.h"

namespace ddkern::kmeans::cuda {

constexpr int kIterationsBetweenReads = 4;  // of how many groups are still at work

// Hands out pieces of one allocation; without one it only adds them up.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <class V>
  V* take(std::int64_t n) {
    const std::int64_t at = used_;
    constexpr std::int64_t kAlignment = 256;
    used_ +=
        (std::max<std::int64_t>(n, 1) * static_cast<std::int64_t>(sizeof(V)) + kAlignment - 1) /
        kAlignment * kAlignment;
    return base_ == nullptr ? nullptr : reinterpret_cast<V*>(base_ + at);
  }
  std::int64_t used() const { return used_; }

 private:
  char* base_;
  std::int64_t used_ = 0;
};

// What a chunk needs on the device beside Chunk itself.
template <class T>
struct Workspace {
  Chunk<T> chunk{};
  SeedTables seeding{};
  GroupShape* shapes;
  RowTile* tiles;
  ProductTile *products, *gram_products;
  std::int32_t* cell_group;
  std::int64_t *order, *units;
  double* weights;
  int* n_active;    // [kIterationsBetweenReads]
  double* history;  // [kIterationsBetweenReads][n_groups]
  // Of the best run so far, where there are several.
  T* tried;  // centroids of this run
  std::int32_t* best_assignment;
  std::int64_t* best_units;
  unsigned char* better;  // [n_groups]
  double* ranked;         // [ranked_at_once()][n_nearest]
};

// What is asked of a chunk.
struct Task {
  bool gram = false, seeds = false, plus_plus = false, iterates = false, several = false;
  bool ordered = false, weighted = false;
  // Whether k of a group's rows must count: not where centroids are looked up alone.
  bool needs_rows = true;
  std::int64_t most_features_scanned = 0;
  std::int64_t n_nearest = 1;
};

// Whether a pass over streamed cells keeps their scores.
inline bool keeps_scores(const Task& task, std::int64_t n_padded, std::int64_t most_k) {
  return task.n_nearest > 1 ? ranking_needs_scores(most_k, task.n_nearest)
                            : n_padded > task.most_features_scanned;
}

template <class T>
Workspace<T> lay_out(Arena& arena, const ChunkSize& size, std::int64_t n_features,
                     const Task& task) {
  Workspace<T> space;
  Chunk<T>& chunk = space.chunk;
  const std::int64_t n_padded = (n_features + kPadding - 1) / kPadding * kPadding;
  const std::int64_t n = size.n_rows, groups = size.n_groups, cells = size.n_cells;
  const std::int64_t window = task.gram ? size.scores
                              : keeps_scores(task, n_padded, size.most_k)
                                  ? std::min(size.scores, kScoreWindow + kTileRows * size.most_k)
                                  : 0;
  chunk.shapes = space.shapes = arena.take<GroupShape>(groups);
  chunk.frames = arena.take<GroupFrame>(groups);
  chunk.runs = arena.take<GroupRun>(groups);
  chunk.means = arena.take<GroupMean>(groups);
  chunk.tiles = space.tiles = arena.take<RowTile>(size.n_tiles);
  space.products = arena.take<ProductTile>(size.n_product_tiles);
  space.gram_products = space.products;
  chunk.order = space.order = task.ordered ? arena.take<std::int64_t>(n) : nullptr;
  chunk.units = space.units = task.weighted ? arena.take<std::int64_t>(n) : nullptr;
  chunk.weights = space.weights = task.weighted ? arena.take<double>(n) : nullptr;
  chunk.hashes = arena.take<unsigned long long>(n);
  chunk.halves = arena.take<__half>(n * n_padded);
  chunk.lost = arena.take<float>(n);
  chunk.norms = arena.take<float>(n);
  chunk.sq_norms = arena.take<double>(n);
  chunk.column_sums = arena.take<std::int64_t>(groups * n_features);
  chunk.centre = arena.take<T>(groups * n_features);
  chunk.assignment = arena.take<std::int32_t>(n);
  chunk.before = arena.take<std::int32_t>(n);
  chunk.cell_group = space.cell_group = arena.take<std::int32_t>(cells);
  chunk.cell_halves = arena.take<__half>(cells * n_padded);
  chunk.bounds = arena.take<CellBound>(cells);
  chunk.source_row = arena.take<std::int32_t>(cells);
  chunk.cell_units = arena.take<std::int64_t>(cells);
  chunk.n_events = arena.take<std::int32_t>(cells);
  chunk.n_members = arena.take<std::int32_t>(cells);
  chunk.reseeded = arena.take<std::int32_t>(cells);
  chunk.open = arena.take<OpenRow>(n);
  chunk.ties = arena.take<OpenRow>(n);
  chunk.n_open = arena.take<int>(1);
  chunk.n_ties = arena.take<int>(1);
  chunk.scores = arena.take<float>(window);
  if (task.gram) {
    chunk.gram = arena.take<float>(size.gram);
    chunk.combined = arena.take<double>(size.combined);
    chunk.n_terms = arena.take<std::int64_t>(cells);
  }
  if (task.seeds) {
    const std::int64_t n_trials = task.plus_plus ? n_trials_for(size.most_k) : 0;
    space.seeding.groups = arena.take<GroupSeeding>(groups);
    space.seeding.closest = arena.take<double>(n);
    space.seeding.chain_norms = arena.take<float>(n);
    space.seeding.taken = arena.take<unsigned char>(n);
    space.seeding.tile_masses = arena.take<std::int64_t>(size.n_tiles);
    space.seeding.distances = arena.take<double>(n * n_trials);
    space.seeding.open = task.gram ? arena.take<std::int32_t>(n * n_trials) : nullptr;
    space.seeding.seeds = arena.take<std::int32_t>(cells);
    if (task.gram) {
      // The first round has one trial a group.
      space.seeding.items = arena.take<ChainItem>(most_chain_items(n, groups, 1 + n_trials));
      space.seeding.n_items = arena.take<int>(2);
    }
  }
  if (task.iterates) {
    chunk.distances = arena.take<double>(n);
    chunk.sums = arena.take<std::int64_t>(cells * n_features);
    chunk.mean_sq_norms = arena.take<double>(cells);
    chunk.off = arena.take<double>(cells);
    chunk.shifts = arena.take<double>(cells);
    chunk.first_member = arena.take<std::int32_t>(cells);
    chunk.least_hash = arena.take<unsigned long long>(cells);
    chunk.most_hash = arena.take<unsigned long long>(cells);
    chunk.event_cursor = arena.take<std::int32_t>(cells);
    chunk.cell_events = arena.take<CellEvents>(cells);
    chunk.events = arena.take<std::int32_t>(2 * n);
    space.n_active = arena.take<int>(kIterationsBetweenReads);
    space.history = arena.take<double>(kIterationsBetweenReads * groups);
  }
  if (task.several) {
    space.tried = arena.take<T>(cells * n_features);
    space.best_assignment = arena.take<std::int32_t>(n);
    space.best_units = arena.take<std::int64_t>(cells);
    space.better = arena.take<unsigned char>(groups);
  }
  if (task.n_nearest > 1) {
    space.ranked = arena.take<double>(ranked_at_once(n, task.n_nearest) * task.n_nearest);
  }
  return space;
}

}  // namespace ddkern::kmeans::cuda
