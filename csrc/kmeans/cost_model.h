// SPDX-License-Identifier: Apache-2.0
// How a group is worked on: Gram space or streaming, what stays in memory, one thread or all.
//
// Pure functions of sizes. They change the time and never the result, so they may be wrong without
// harm; tests/python/kmeans/test_cost_model.py pins what they choose for the shapes the library is
// for.
#pragma once

#include <cstdint>

#include "kmeans/group.h"
#include "kmeans/kmeans.h"

namespace ddkern::kmeans {

struct GroupShape {
  std::int64_t n_rows, n_features, k;
  std::int64_t item_bytes;  // of T
  bool in_place;            // rows are read where they lie
  FastFormat fastest;       // what the CPU multiplies fastest
};

struct GroupPlan {
  Algorithm algorithm = Algorithm::streaming;  // never automatic
  Residency residency;
  FastFormat format = FastFormat::f32;  // of the fast blocks
  bool head = false;                    // of bytes, should the rows have one that pays
  bool needs_f32 = false;  // seeding or the Gram matrix asks for float32 blocks, kept or not
  bool cache_scores = false;
  bool margins = false;  // rule columns out from one pass to the next, with rows sorted by cell
  std::int64_t candidates_kept = 0;  // rows whose products seeding keeps, for they are drawn again
  bool keeps_finer_blocks = false;   // should bytes prove too coarse
  std::int64_t bytes = 0;            // of everything above
};

// The workspace without which nothing runs, at its peak: what every row, centroid and thread has,
// whatever is kept beside it.
std::int64_t least_bytes(const GroupShape& shape, const FitOptions& options, int n_threads);

// What fits `budget_in_bytes` beside least_bytes(), in the order of what it saves, for a group that
// `n_threads` work on. Throws InvalidArgument when Gram space is forced and its matrix does not
// fit.
GroupPlan plan_group(const GroupShape& shape, const FitOptions& options,
                     std::int64_t budget_in_bytes, int n_threads);

// Whether one pass over the Gram matrix is expected to cost less than products with the rows.
bool gram_is_cheaper(const GroupShape& shape, Init init, int n_init);

// The packed rows that one group's passes go over again and again.
std::int64_t working_set_bytes(const GroupShape& shape, Init init);

// Whether groups are better solved one a thread than one after another with all threads.
bool one_group_a_thread(std::int64_t n_groups, int n_threads, std::int64_t largest_working_set);

}  // namespace ddkern::kmeans
