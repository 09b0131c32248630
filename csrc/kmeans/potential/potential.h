// SPDX-License-Identifier: Apache-2.0
// potential: what a seeding candidate would leave, for one block of points.
//
//   d[p]        = max(0, (norm[p] - 2 * dot[p]) + candidate_norm)                 (float64)
//   nearer[p]   = min(closest[p], d[p])
//   returns sum over p of RN(weight[p] * RN(nearer[p] * unit))                    (int64, exact)
//
// docs/numerics.md sections 6 and 8: d32 and the potential. Rows that do not count (weight 0, or
// past the end) have closest 0, which stays 0. The same bits at every level.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "kmeans/block.h"

namespace ddkern::kmeans {

struct PotentialArgs {
  const double* closest;  // [kBlockPoints]
  const float* norms;     // [kBlockPoints] chain norms of the points
  const float* dots;      // [kBlockPoints] chain dots with the candidate
  double candidate_norm;
  double unit;            // a power of two
  const double* weights;  // [kBlockPoints], or null for 1
  double* nearer;         // out [kBlockPoints]
};

struct PotentialOps {
  std::int64_t (*potential)(const PotentialArgs& args) noexcept;
};

extern const PotentialOps potential_base;
extern const PotentialOps potential_avx2;
extern const PotentialOps potential_avx512;

const PotentialOps& potential_ops(Isa isa);

}  // namespace ddkern::kmeans
