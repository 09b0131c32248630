// SPDX-License-Identifier: Apache-2.0
// gram_sum: weighted sums of rows of the Gram matrix, for all points, and products from them.
//
//   add:       sums[p] += weights[0] * rows[0][p] + weights[1] * rows[1][p] + ...      (float64)
//   products:  out[p] = fl32(factor * sums[p])
//
// Only used under a certificate: at most two roundings an addend, in any order.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "kmeans/block.h"

namespace ddkern::kmeans {

struct GramSumArgs {
  const float* const* rows;  // [n_rows] pointers to [n_blocks][kBlockPoints]
  const double* weights;     // [n_rows]
  std::int64_t n_rows;       // 1 or more
  std::int64_t n_blocks;
  std::int64_t stride;  // doubles from the sums of one block to those of the next
  bool fresh;           // start from 0
  double* sums;         // inout, kBlockPoints a block
};

struct GramSumOps {
  void (*add)(const GramSumArgs& args) noexcept;
  // sums [kBlockPoints], out [kBlockPoints].
  void (*products)(const double* sums, double factor, float* out) noexcept;
};

extern const GramSumOps gram_sum_base;
extern const GramSumOps gram_sum_avx2;
extern const GramSumOps gram_sum_avx512;

const GramSumOps& gram_sum_ops(Isa isa);

}  // namespace ddkern::kmeans
