// SPDX-License-Identifier: Apache-2.0
#include "kmeans/cost_model.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kmeans/seeding.h"

namespace ddkern::kmeans {
namespace {

// Caching scores saves products and costs memory traffic; below this many features it loses
// (measured: 128 features lose, 512 win).
constexpr std::int64_t kFewestFeaturesToCacheScores = 256;

// Two groups at once are slower than one after the other when they push each other out of the last
// cache. Typical L3 per core complex.
constexpr std::int64_t kLastLevelCache = std::int64_t{32} << 20;

std::int64_t padded_rows(const GroupShape& shape) {
  return n_blocks_of(shape.n_rows) * kBlockPoints;
}

// Bytes have low halves in a few segments.
std::int64_t fast_block_bytes(const GroupShape& shape) {
  const std::int64_t n = padded_rows(shape);
  switch (shape.fastest) {
    case FastFormat::f32: return n * shape.n_features * 4;
    case FastFormat::bf16: return n * (shape.n_features + 1) * 2;
    case FastFormat::bytes: return n * shape.n_features * 5 / 4;
  }
  return 0;
}

}  // namespace

std::int64_t least_bytes(const GroupShape& shape) {
  return shape.k * shape.n_features * (8 + 2 * shape.item_bytes + 4) + shape.n_rows * 64;
}

bool gram_is_cheaper(const GroupShape& shape, Init init, int n_init) {
  // In columns: products of all rows with one column, in float32. The Gram matrix is half of n_rows
  // columns. A direct run seeds with k * trials columns, thin ones that wait for memory
  // (hence 1.5), and iterates with a few times k columns, at half the price in bfloat16.
  const double seeding =
      init == Init::plus_plus ? 1.5 * static_cast<double>(n_seeding_trials(shape.k)) : 0.0;
  const double iterating = shape.fastest == FastFormat::f32 ? 4.0 : 2.0;
  const double direct =
      static_cast<double>(n_init) * static_cast<double>(shape.k) * (seeding + iterating);
  return static_cast<double>(shape.n_rows) / 2 < direct;
}

GroupPlan plan_group(const GroupShape& shape, const FitOptions& options,
                     std::int64_t budget_in_bytes) {
  const std::int64_t n = padded_rows(shape);
  const std::int64_t f32_bytes = n * shape.n_features * 4;
  const std::int64_t gram_bytes = n * n * 4 + n * shape.k * 8;
  const std::int64_t budget = budget_in_bytes - least_bytes(shape);

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
  plan.needs_f32 =
      gram || (options.init == Init::plus_plus && shape.fastest != FastFormat::bytes);
  const bool needs_fast = !gram || options.init == Init::array;
  if (needs_fast) {
    plan.format = shape.fastest;
    plan.residency.fast_blocks = take(fast_block_bytes(shape));
  }
  const bool fast_is_f32 = plan.format == FastFormat::f32;
  if (plan.needs_f32 || fast_is_f32) {
    plan.residency.f32_blocks = (plan.residency.fast_blocks && fast_is_f32) || take(f32_bytes);
  }
  if (!shape.in_place) {
    plan.residency.rows = take(shape.n_rows * shape.n_features * shape.item_bytes);
  }
  if (!gram && shape.n_features >= kFewestFeaturesToCacheScores) {
    plan.cache_scores = take(n * shape.k * 4);
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
