// SPDX-License-Identifier: Apache-2.0
// Lloyd's iteration on one group (docs/numerics.md sections 5, 9 and 10).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kmeans/direct_scores.h"
#include "kmeans/gram.h"
#include "kmeans/kmeans.h"

namespace ddkern::kmeans {

struct LloydPlan {
  bool cache_scores = false;
  bool margins = false;
  // What to go over to when products of bytes leave too many rows open, and whether its blocks may
  // be kept.
  FastFormat finer_format = FastFormat::bytes;
  bool keep_finer = false;
};

template <class T>
struct LloydResult {
  std::vector<std::int32_t> assignment;  // [n]
  std::vector<std::int64_t> units;       // [k] cell masses
  double scaled_distortion = 0;          // in the group's frame, where nothing overflows
  double distortion = 0;
  std::vector<double> history;
  std::int64_t n_iter = 0;
  bool converged = false;
  std::int64_t n_empty_cells = 0;
  std::int64_t rows_assigned = 0, rows_rechecked = 0, rows_exact = 0, cells_reseeded = 0;
  std::int64_t products_skipped = 0;
};

// Moves `centroids` [k][n_features], which are the values of `seed_rows` unless that is empty.
// `gram` may be null, and `seeded` empty; the result is the same. The fast blocks of the group may
// change their format.
template <class T>
LloydResult<T> lloyd(Group<T>& group, const GramMatrix* gram, T* centroids, std::int64_t k,
                     const std::vector<std::int64_t>& seed_rows,
                     std::optional<SeededScores<T>> seeded, const FitOptions& options,
                     const LloydPlan& plan, const Team& team);

}  // namespace ddkern::kmeans
