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

// What approximate scores (columns.h) tell about d32 between a candidate and one block of points:
//   d      = (sq_norm[p] + score) * unit
//   lower, upper = d -+ ((p u + q v + e + sq_norm_error * sq_norm[p]) * unit
//                        + chain_error * (norm[p] + candidate_norm)^2 + chain_underflow)
struct ScreenArgs {
  const float* products;   // [kBlockPoints]
  float base, u, v, e;     // of the candidate's column
  const float *p, *q;      // [kBlockPoints]
  const double* sq_norms;  // [kBlockPoints] in the frame of the scores
  double sq_norm_error;    // relative
  double unit;             // from that frame to the canonical one
  const double* norms;     // [kBlockPoints] bounds on the norms in the canonical frame
  double candidate_norm;   // the candidate's
  double chain_error;      // of d32, relative to the square of the sum of both norms
  double chain_underflow;  // and absolute
  const double* closest;   // [kBlockPoints]
  double* lower;           // out [kBlockPoints]
  double* upper;           // out [kBlockPoints]
};

struct PotentialOps {
  std::int64_t (*potential)(const PotentialArgs& args) noexcept;
  // The points that the candidate may be nearer to than what is closest, a bit each.
  std::uint32_t (*screen)(const ScreenArgs& args) noexcept;
};

extern const PotentialOps potential_base;
extern const PotentialOps potential_avx2;
extern const PotentialOps potential_avx512;

const PotentialOps& potential_ops(Isa isa);

}  // namespace ddkern::kmeans
