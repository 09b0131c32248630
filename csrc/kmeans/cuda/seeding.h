// SPDX-License-Identifier: Apache-2.0
// Seeding (docs/numerics.md sections 7 and 8), all groups a step at a time. Which rows can come
// nearer is screened with the Gram matrix where there is one; what decides are chains of float32
// multiply-adds, and they are taken of the rows left open alone.
#pragma once

#include <functional>

#include "kmeans/cuda/tables.h"

namespace ddkern::kmeans::cuda {

// Up to 32 open rows of a trial whose chains are to be taken.
struct ChainItem {
  std::int32_t group, trial, first_slot;
};

struct SeedTables {
  GroupSeeding* groups;       // [n_groups]
  double* closest;            // [n_rows] distance to the nearest seed, 0 for rows that do not count
  float* chain_norms;         // [n_rows] g(i, i)
  unsigned char* taken;       // [n_rows] equals a seed
  std::int32_t* open;         // [n_trials][n_rows] rows of the group, or null without a Gram matrix
  double* distances;          // [n_trials][n_rows]
  std::int64_t* tile_masses;  // [n_tiles]
  std::int32_t* seeds;        // [n_cells] rows of the group
  ChainItem* items;           // of the first round, then of the second; null as `open`
  int* n_items;               // [2]
  int n_multiprocessors;
};

// Items that a pass over `n_trials` trials of all rows may need.
__host__ __device__ inline std::int64_t most_chain_items(std::int64_t n_rows, std::int64_t n_groups,
                                                         std::int64_t n_trials) {
  return (n_rows / 32 + n_groups) * n_trials;
}

int n_trials_for(std::int64_t k);

// Between steps `poll` is called, which may throw: a large group has thousands of them.
using Poll = std::function<void()>;

template <class T>
void seed_plus_plus(const Chunk<T>& chunk, const SeedTables& tables, std::int64_t most_k,
                    unsigned restart, double product_error, const Poll& poll, cudaStream_t stream);

template <class T>
void seed_random(const Chunk<T>& chunk, const SeedTables& tables, std::int64_t most_k,
                 unsigned restart, const Poll& poll, cudaStream_t stream);

// The values of the seeds as centroids.
template <class T>
void copy_seeds(const Chunk<T>& chunk, const std::int32_t* seeds, cudaStream_t stream);

}  // namespace ddkern::kmeans::cuda
