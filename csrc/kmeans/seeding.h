// SPDX-License-Identifier: Apache-2.0
// Seeding: which rows the centroids start from (docs/numerics.md sections 7 and 8).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/random.h"
#include "kmeans/direct_scores.h"
#include "kmeans/gram.h"

namespace ddkern::kmeans {

// The random numbers of one run: a group's stream at one restart.
struct Draws {
  GroupStream stream;
  std::uint32_t restart;
  double operator()(std::int64_t step, int trial) const {
    return stream.uniform(static_cast<std::uint32_t>(step), restart,
                          static_cast<std::uint32_t>(trial));
  }
};

struct Seeds {
  std::vector<std::int64_t> rows;  // [k] rows of the group
  double potential = 0;  // weighted sum of squared distances to the nearest seed, k-means++
};

// What seeding hands over to Lloyd's first pass, where it is worth it.
template <class T>
struct PlusPlusSeeds {
  Seeds seeds;
  std::optional<SeededScores<T>> scores;
};

// Greedy k-means++ (Arthur and Vassilvitskii, SODA 2007) with 2 + floor(ln k) trials a step. `gram`
// may be null; the seeds are the same. `n_kept` is GroupPlan::candidates_kept, `mislead` is
// FitOptions::mislead, not no; `hand_over` asks for the scores.
template <class T>
PlusPlusSeeds<T> seed_plus_plus(const Group<T>& group, const GramMatrix* gram, std::int64_t k,
                                const Draws& draws, std::int64_t n_kept, bool hand_over,
                                bool mislead, const Team& team);

// Rows drawn by weight, no value twice while distinct ones remain.
template <class T>
Seeds seed_random(const Group<T>& group, std::int64_t k, const Draws& draws, const Team& team);

int n_seeding_trials(std::int64_t k);

}  // namespace ddkern::kmeans
