// SPDX-License-Identifier: Apache-2.0
// scan: from approximate scores to certain winners.
//
// A score is s_k = ||c_k||^2 - 2 <x, c_k> = base[k] + product, known to within
//     E_k = p * u[k] + q * v[k] + e[k]                   (p, q of the point; u, v, e of the column)
// The winner is certain when its s_k + E_k lies below s_j - E_j of every other column. The columns
// that may still win are those with s_k - E_k <= upper, upper = min_j (s_j + E_j).
//
// The bounds passed in leave room for the roundings of this op itself.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "kmeans/block.h"

namespace ddkern::kmeans {

struct ScanArgs {
  const float* products;  // [...][kBlockPoints]
  // Those to look at, ascending, for either half of the block, or null for the first n_columns;
  // they index all arrays.
  const std::int32_t* columns[2];
  std::int64_t n_columns[2];
  const float* base;
  const float* p;  // [kBlockPoints]
  const float* q;  // [kBlockPoints]
  const float* u;
  const float* v;
  const float* e;
  float most_u, most_v, most_e;  // the largest of them
};

struct ScanResult {
  std::int32_t winner[kBlockPoints];     // column of the least s - E
  std::int32_t runner_up[kBlockPoints];  // column of the second least; meaningful with two columns
  float upper[kBlockPoints];
  std::uint32_t certain;  // bit p: no other column than the winner may win
  std::uint32_t two;      // bit p: none but the winner and the runner-up may
};

// Columns the scan cannot rule out for point p.
inline bool may_win(const ScanArgs& args, const ScanResult& result, int point,
                    std::int64_t column) {
  const float bound =
      args.p[point] * args.u[column] + args.q[point] * args.v[column] + args.e[column];
  const float score = args.products[column * kBlockPoints + point] + args.base[column];
  return !(score - bound > result.upper[point]);
}

struct ScanOps {
  // No number among the arguments may be NaN.
  void (*scan)(const ScanArgs& args, ScanResult& result) noexcept;
};

extern const ScanOps scan_base;
extern const ScanOps scan_avx2;
extern const ScanOps scan_avx512;

const ScanOps& scan_ops(Isa isa);

}  // namespace ddkern::kmeans
