// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cost_model.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "kmeans/cell_sums.h"
#include "kmeans/column_set.h"
#include "kmeans/group.h"
#include "kmeans/margins.h"
#include "kmeans/seeding.h"

namespace ddkern::kmeans {
namespace {

// Caching scores saves products and costs memory traffic; below this many features it loses
// (measured: 128 features lose, 512 win).
constexpr std::int64_t kFewestFeaturesToCacheScores = 256;

// Two groups at once are slower than one after the other when they push each other out of the last
// cache. Typical L3 per core complex.
constexpr std::int64_t kLastLevelCache = std::int64_t{32} << 20;

// Products of seeding candidates beyond this cost more in fresh pages than they save.
constexpr std::int64_t kMostBytesOfCandidates = std::int64_t{64} << 20;

// Margins rule out little where 16 rows are of several cells: with few columns any rows are near to
// all of them, and small cells do not fill a block. Sorting must have passes left in which to pay.
constexpr std::int64_t kFewestColumnsForMargins = 24, kFewestRowsOfCell = 48;
constexpr std::int64_t kFewestPassesForMargins = 8;

std::int64_t padded_rows(const GroupShape& shape) {
  return n_blocks_of(shape.n_rows) * kBlockPoints;
}

// As bytes, up to a third of the features are wide (byte_layout.h) and take two.
std::int64_t fast_block_bytes(const GroupShape& shape) {
  const std::int64_t n = padded_rows(shape);
  switch (shape.fastest) {
    case FastFormat::f32: return n * shape.n_features * 4;
    case FastFormat::bf16: return n * (shape.n_features + 1) * 2;
    case FastFormat::bytes: return n * shape.n_features * 4 / 3;
  }
  return 0;
}

// All rows that seeding may draw, where many of them are drawn more than once or the first pass can
// start from the products of the seeds.
std::int64_t candidates_worth_keeping(const GroupShape& shape, bool caches_scores) {
  const std::int64_t n_draws = (shape.k - 1) * n_seeding_trials(shape.k);
  if (n_draws < shape.n_rows / 4 && !caches_scores) return 0;
  const std::int64_t n_kept = std::min(n_draws, shape.n_rows);
  return n_kept * padded_rows(shape) * 4 <= kMostBytesOfCandidates ? n_kept : 0;
}

}  // namespace

// Follows the members and locals of the classes named beside each line. Vectors that grow by
// doubling are counted with the copy they are moved from.
std::int64_t least_bytes(const GroupShape& shape, const FitOptions& options, int n_threads) {
  const std::int64_t n = padded_rows(shape), d = shape.n_features, k = shape.k, t = n_threads;
  const std::int64_t row = d * shape.item_bytes, block_rows = kBlockPoints * row;
  const std::int64_t block = (d + 1) * kBlockPoints * 4;  // packed
  const std::int64_t trials = n_seeding_trials(k);
  const bool maybe_gram = options.algorithm == Algorithm::gram ||
                          (options.algorithm == Algorithm::automatic &&
                           gram_is_cheaper(shape, options.init, options.n_init));

  // Group: units, weights, norms, bounds, tails; two centres and a shift.
  const std::int64_t group = n * (8 + 8 + 8 + 8 + 8 + 4) + 2 * row + 8 * d;
  // Group::guess_fast_frame, then first_pass and set_frame, or GramMatrix.
  const std::int64_t survey =
      block_rows + (shape.fastest != FastFormat::f32 ? block / 2 : 0) + 2 * row + 16 * d;
  const std::int64_t prepare = std::max(2 * block_rows, t * (survey + row + 8 * d) + n * 10);
  const std::int64_t gram = maybe_gram ? t * (2 * block + block_rows) : 0;
  // PlusPlus: two Masses, norms, closest, nearer; columns and rows of the candidates.
  std::int64_t seeding = 0;
  if (options.init == Init::plus_plus && shape.fastest == FastFormat::bytes) {
    // Two Masses, closest, open rows; Screening: norms, candidates as rows and columns, scratch.
    seeding = n * (8 + 8 + 8 + 16 * trials + 8 + 8 + 4 + 4) + trials * (row + 4 * apart(d)) +
              t * (block_rows + block + trials * kBlockPoints * 4) + row + 4 * d;
  } else if (options.init == Init::plus_plus) {
    seeding = n * (8 + 8 + 4 + 8 + 8 * trials) + (trials + 1) * row + 4 * kTileColumns * apart(d) +
              t * (block_rows + row + block);
  } else if (options.init == Init::random) {
    seeding = n * (8 + 8) + (t + 1) * row;
  }
  // Lloyd: sums, those of threads, a previous centroid; DirectScores: packed columns and blocks;
  // Nearest: scores.
  const std::int64_t asides =
      (threads_keep_sums(shape.n_rows, d, k, n_threads) ? (t - 1) * k : t) * d * 8;
  const std::int64_t columns = k * (8 * d + 4 * apart(d) + 96) + t * row + asides;
  const std::int64_t scratch =
      t * (block + block_rows + (4 * kBlockPoints + 24) * k + 3 * row + 16 * d);
  // Norms, labels, moves, rows and their cells or distances; in Gram space the members of cells,
  // and bounds.
  const std::int64_t labels = n * (8 + 4 + 16 + 12) + (maybe_gram ? n * (8 + 16 + 32) : 0);
  const std::int64_t lloyd = columns + scratch + labels + row;
  // Restarts do not run in place, and the best so far waits.
  const std::int64_t best = options.n_init > 1 ? k * (row + 8) + n * 4 : 0;
  return group + best + std::max({prepare, gram, seeding, lloyd});
}

bool gram_is_cheaper(const GroupShape& shape, Init init, int n_init) {
  // In columns: products of all rows with one column, in float32. Factors measured on a Zen 4.
  const auto n = static_cast<double>(shape.n_rows), restarts = static_cast<double>(n_init);
  const double trials = init == Init::plus_plus ? n_seeding_trials(shape.k) : 0;
  const auto k = static_cast<double>(shape.k);
  // Half of the matrix, at less than full speed, then some n additions for every row that changes
  // cell, which wait for memory.
  const double gram = 0.75 * n + restarts * 200 * n / static_cast<double>(shape.n_features);
  // A direct run seeds with k * trials thin columns, which wait for memory, and iterates with a few
  // times k columns. Bytes take a fifth of the time, but leave chains of scattered rows: about
  // n / step at every step. Whatever k is, rows are added up, move and are compared.
  constexpr double kRows = 90;
  double seeding = 1.5 * trials * k, iterating = 4.0 * k;
  if (shape.fastest == FastFormat::bf16) iterating = 2.0 * k;
  if (shape.fastest == FastFormat::bytes) {
    seeding = trials > 0 ? (0.2 * trials + 0.7) * k + 14 * std::log(k + 1) : 0.0;
    iterating = 1.3 * k;
  }
  return gram < restarts * (seeding + iterating + kRows);
}

GroupPlan plan_group(const GroupShape& shape, const FitOptions& options,
                     std::int64_t budget_in_bytes, int n_threads) {
  const std::int64_t n = padded_rows(shape);
  const std::int64_t f32_bytes = n * shape.n_features * 4;
  const std::int64_t gram_bytes = n * n * 4 + n * shape.k * 8;
  const std::int64_t budget = budget_in_bytes - least_bytes(shape, options, n_threads);

  GroupPlan plan;
  const auto take = [&](std::int64_t bytes) {
    if (plan.bytes + bytes > budget) return false;
    plan.bytes += bytes;
    return true;
  };
  const bool forced = options.algorithm == Algorithm::gram;
  const bool wanted = forced || (options.algorithm == Algorithm::automatic &&
                                 gram_is_cheaper(shape, options.init, options.n_init));
  if (wanted && take(gram_bytes)) {
    plan.algorithm = Algorithm::gram;
  } else if (forced) {
    throw InvalidArgument("algorithm is 'gram', which needs " + std::to_string(gram_bytes) +
                          " bytes for a group of " + std::to_string(shape.n_rows) +
                          " rows; max_memory leaves " +
                          std::to_string(std::max<std::int64_t>(budget, 0)));
  }
  const bool gram = plan.algorithm == Algorithm::gram;
  // Where the CPU multiplies bytes, seeding screens with them and centres the few rows it needs.
  plan.needs_f32 = gram || (options.init == Init::plus_plus && shape.fastest != FastFormat::bytes);
  const bool needs_fast = !gram || options.init == Init::array;
  if (needs_fast) {
    plan.format = shape.fastest;
    plan.residency.fast_blocks = take(fast_block_bytes(shape));
    plan.head = plan.format == FastFormat::bytes && shape.k >= kFewestColumnsForHeads;
  }
  const bool fast_is_f32 = plan.format == FastFormat::f32;
  if (plan.needs_f32 || fast_is_f32) {
    plan.residency.f32_blocks = (plan.residency.fast_blocks && fast_is_f32) || take(f32_bytes);
  }
  if (!shape.in_place) {
    plan.residency.rows = take(shape.n_rows * shape.n_features * shape.item_bytes);
  }
  if (!gram && shape.n_features >= kFewestFeaturesToCacheScores) {
    // With two sets of columns for every half of a block, whose products are there.
    const std::int64_t set = ColumnSet::n_words_of(shape.k) * 8;
    plan.cache_scores = take(n * shape.k * 4 + n / kHalfBlock * 2 * set);
  }
  // With restarts the rows are needed again in their own order.
  plan.margins =
      !gram && options.n_init == 1 && shape.k >= kFewestColumnsForMargins &&
      shape.n_rows >= kFewestRowsOfCell * shape.k && options.max_iter >= kFewestPassesForMargins &&
      take(Margins::bytes(shape.n_rows, shape.k) + bytes_to_reorder(shape.n_rows, n_threads));
  if (!gram && plan.format == FastFormat::bytes && options.init == Init::plus_plus) {
    plan.candidates_kept = candidates_worth_keeping(shape, plan.cache_scores);
    if (!take(plan.candidates_kept * (n + apart(shape.n_features * 4 / 3)) * 4)) {
      plan.candidates_kept = 0;
    }
  }
  if (!gram && plan.format == FastFormat::bytes && options.n_init == 1) {
    plan.keeps_finer_blocks =
        plan.residency.fast_blocks && take(f32_bytes - fast_block_bytes(shape));
  }
  return plan;
}

std::int64_t working_set_bytes(const GroupShape& shape, Init init) {
  const bool fast_is_f32 = shape.fastest == FastFormat::f32;
  const std::int64_t f32_bytes = shape.n_rows * shape.n_features * 4;
  const bool seeds_on_f32 = init == Init::plus_plus && shape.fastest != FastFormat::bytes;
  return (seeds_on_f32 || fast_is_f32 ? f32_bytes : 0) +
         (fast_is_f32 ? 0 : fast_block_bytes(shape));
}

bool one_group_a_thread(std::int64_t n_groups, int n_threads, std::int64_t largest_working_set) {
  if (n_threads == 1 || n_groups < n_threads) return false;
  // One group fits the cache and several do not: then they take turns in it.
  return largest_working_set * n_threads <= kLastLevelCache ||
         largest_working_set > kLastLevelCache;
}

}  // namespace ddkern::kmeans
